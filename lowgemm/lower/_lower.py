"""Dispatch: every fused node to the function that emits its kernel calls."""

from lowgemm.errors import UnsupportedOperatorError
from lowgemm.graph import Graph
from lowgemm.lower import _float, _handlers, _layout
from lowgemm.lower._context import Context
from lowgemm.lower._program import Program
from lowgemm.passes import group_float_regions
from lowgemm.targets import CpuTarget


def lower(graph: Graph, target: CpuTarget, threads: int) -> Program:
    """The program that computes `graph` (already fused) on `target`.

    Raises:
        UnsupportedOperatorError: operators remain that neither the integer nor the float path knows.
    """
    program = Program(target.level, list(graph.inputs), list(graph.outputs))
    context = Context(program, graph, target, threads)
    _layout.declare_inputs(context, frozenset(_handlers.HANDLERS))
    for item in group_float_regions(graph):
        if isinstance(item, list):
            _float.lower_region(context, item)
        elif item.op in _handlers.HANDLERS:
            _handlers.HANDLERS[item.op](context, item)
        else:
            raise UnsupportedOperatorError(
                f"operator {item.op} (node {item.name!r}) is not supported"
            )
    _layout.finish_outputs(context)
    return program
