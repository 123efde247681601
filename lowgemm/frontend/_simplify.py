"""Rewriting a graph that is in canonical form already: the same function with fewer nodes.

Every pass changes the graph in place and keeps the names of tensors that outlive it.
"""

from collections.abc import Callable

from lowgemm.frontend._activations import find_activations
from lowgemm.frontend._fold import fold_constants, fold_padding, fold_scale_and_shift
from lowgemm.frontend._products import normalise_products
from lowgemm.graph import Graph

_PASSES: tuple[Callable[[Graph], None], ...] = (
    fold_constants,
    find_activations,
    fold_padding,
    normalise_products,
    fold_scale_and_shift,
    fold_constants,
)


def simplify(graph: Graph) -> None:
    """Run all passes once, in their order, and drop what nothing needs any more."""
    for rewrite in _PASSES:
        rewrite(graph)
        graph.prune()
