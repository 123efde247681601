"""Ranges without the ends that an activation makes nothing of."""

from collections.abc import Mapping

import numpy as np

from lowgemm.frontend._calibrate import Range
from lowgemm.frontend._insert import Plan, is_table
from lowgemm.frontend._match import Matcher
from lowgemm.graph import Graph, Node
from lowgemm.reference import evaluate

# An end is flat while the function changes by no more than this share of a step of its result's codes.
_SHARE = 0.25
_POINTS = 4096


def trim_ranges(graph: Graph, plan: Plan, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The `ranges`, those of activations' inputs cut off where the activation is flat.

    A convolution in front of a hard-swish may reach down to -40, all of which below -3 becomes 0: codes for it would
    only make the step larger for all the rest. What is cut off changes the activation's result by at most a quarter of
    a step of its codes.
    """
    match, chosen = Matcher(graph), {id(node) for node in plan.nodes}
    wanted, trimmed = set(plan.tensors), dict(ranges)
    for tensor in plan.tensors:
        nodes = _activation(match, tensor, chosen, wanted)
        if nodes and tensor in ranges and nodes[-1].output in ranges:
            trimmed[tensor] = _trimmed(graph, nodes, ranges[tensor], ranges[nodes[-1].output])
    return trimmed


def _activation(match: Matcher, tensor: str, chosen: set[int], wanted: set[str]) -> list[Node]:
    """The functions of single elements that make the next quantized tensor of `tensor`, if nothing else reads it."""
    nodes: list[Node] = []
    while not nodes or tensor not in wanted:
        user = match.only_use(tensor)
        if user is None or id(user) not in chosen or not is_table(match.graph, user):
            return []
        nodes.append(user)
        tensor = user.output
    return nodes


def _trimmed(graph: Graph, nodes: list[Node], source: Range, result: Range) -> Range:
    low, high = min(source.low, 0.0), max(source.high, 0.0)
    points = np.linspace(low, high, _POINTS, dtype=np.float32)
    value = points
    for node in nodes:
        (value,) = evaluate(
            node, [graph.constants.get(t, value) if t else None for t in node.inputs]
        )
    bound = _SHARE * (max(result.high, 0.0) - min(result.low, 0.0)) / 255
    first = _flat_until(value, bound)
    last = _POINTS - 1 - _flat_until(value[::-1], bound)
    return Range(min(float(points[first]), 0.0), max(float(points[last]), 0.0))


def _flat_until(values: np.ndarray, bound: float) -> int:
    """The last index up to which all values are within `bound` of the one there."""
    above = np.maximum.accumulate(values) - values
    below = values - np.minimum.accumulate(values)
    return int(np.flatnonzero(np.maximum(above, below) <= bound)[-1])
