"""Recognising activations that exporters write as several operators."""

import math

from lowgemm.frontend._match import Matcher
from lowgemm.graph import Graph, Node


def find_activations(graph: Graph) -> None:
    """Replace HardSigmoid, HardSwish, Silu and Gelu by single nodes where they are spelled out.

    Only direct connections match, so nothing is joined across a quantization.
    """
    for find in (_hard_sigmoid, _hard_swish, _silu, _gelu):
        match = Matcher(graph)
        for node in graph.nodes:
            find(match, node)


def _become(node: Node, op: str, x: str, **attrs: float | str) -> None:
    node.op, node.inputs, node.attrs = op, [x], dict(attrs)


def _relu6_of_plus_3(match: Matcher, tensor: str) -> str | None:
    """The x of clip(x + 3, 0, 6)."""
    clip = match.producer(tensor, "Clip")
    if clip is None or (clip.attrs["min"], clip.attrs["max"]) != (0, 6):
        return None
    add = match.producer(clip.inputs[0], "Add")
    return None if add is None else match.with_scalar(add, 3.0)


def _hard_sigmoid(match: Matcher, node: Node) -> None:
    """clip(x + 3, 0, 6) / 6, or * 1/6."""
    inner = None
    if node.op == "Div" and match.is_scalar(node.inputs[1], 6.0):
        inner = node.inputs[0]
    elif node.op == "Mul":
        inner = match.with_scalar(node, 1 / 6)
    x = None if inner is None else _relu6_of_plus_3(match, inner)
    if x is not None and match.graph.types[x] == match.graph.types[node.output]:
        _become(node, "HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _hard_swish(match: Matcher, node: Node) -> None:
    """x * HardSigmoid(x) with slope 1/6, or x * clip(x + 3, 0, 6) / 6."""
    if node.op == "Mul":
        for x, gate in (node.inputs, node.inputs[::-1]):
            hard = match.producer(gate, "HardSigmoid")
            if hard is None or hard.inputs[0] != x:
                continue
            if abs(hard.attrs["alpha"] - 1 / 6) < 1e-4 and abs(hard.attrs["beta"] - 0.5) < 1e-6:
                return _become(node, "HardSwish", x)
    product = None
    if node.op == "Div" and match.is_scalar(node.inputs[1], 6.0):
        product = match.producer(node.inputs[0], "Mul")
    elif node.op == "Mul" and (inner := match.with_scalar(node, 1 / 6)) is not None:
        product = match.producer(inner, "Mul")
    if product is not None:
        for x, gate in (product.inputs, product.inputs[::-1]):
            if _relu6_of_plus_3(match, gate) == x:
                return _become(node, "HardSwish", x)


def _silu(match: Matcher, node: Node) -> None:
    """x * Sigmoid(x)."""
    if node.op != "Mul":
        return
    for x, gate in (node.inputs, node.inputs[::-1]):
        sigmoid = match.producer(gate, "Sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] == x:
            return _become(node, "Silu", x)


def _gelu(match: Matcher, node: Node) -> None:
    """x * (1 + Erf(x / sqrt(2))) * 0.5, the three factors in any order."""
    if node.op != "Mul":
        return
    factors = _factors(match, node)
    half = [t for t in factors if match.is_scalar(t, 0.5)]
    rest = [t for t in factors if t not in half]
    if len(half) != 1 or len(rest) != 2:
        return
    for x, gate in (rest, rest[::-1]):
        add = match.producer(gate, "Add")
        inner = None if add is None else match.with_scalar(add, 1.0)
        erf = None if inner is None else match.producer(inner, "Erf")
        if erf is not None and _over_root_2(match, erf.inputs[0]) == x:
            return _become(node, "Gelu", x, approximate="none")


def _factors(match: Matcher, node: Node) -> list[str]:
    """The three factors of a product of products; fewer if `node` is not one."""
    for left, right in (node.inputs, node.inputs[::-1]):
        inner = match.producer(left, "Mul")
        if inner is not None:
            return [*inner.inputs, right]
    return list(node.inputs)


def _over_root_2(match: Matcher, tensor: str) -> str | None:
    """The x of x / sqrt(2)."""
    node = match.producer(tensor, "Div", "Mul")
    if node is None:
        return None
    if node.op == "Div":
        return node.inputs[0] if match.is_scalar(node.inputs[1], math.sqrt(2)) else None
    return match.with_scalar(node, 1 / math.sqrt(2))
