"""Float operators that TVM has no code for, or none that is safe, as several that it has."""

from collections.abc import Callable

import numpy as np

from lowgemm import reference
from lowgemm.graph import Graph, Node


def spell_out_operators(graph: Graph) -> None:
    """Rewrite Sinh, Cosh and Celu, compute weights, and keep the indices of Gather within what is read."""
    nodes: list[Node] = []
    for node in graph.nodes:
        spell = _SPELLINGS.get(node.op)
        if spell is not None:
            nodes += spell(graph, node)
        else:
            nodes.append(node)
    graph.nodes = nodes


class _Steps:
    """Nodes that take the place of `node`. Results in between have the type of the tensor `like`."""

    def __init__(self, graph: Graph, node: Node, like: str) -> None:
        self.graph, self.node, self.type = graph, node, graph.types[like]
        self.nodes: list[Node] = []

    def constant(self, value: float, hint: str) -> str:
        constant = np.array(value, self.type.dtype)
        return self.graph.add_constant(constant, f"{self.node.output}/{hint}")

    def add(self, op: str, *inputs: str, hint: str, **attrs: float) -> str:
        out = self.graph.add_tensor(self.type, f"{self.node.output}/{hint}")
        self.nodes.append(Node(op, list(inputs), [out], attrs, f"{self.node.name}/{hint}"))
        return out

    def end(self, op: str, *inputs: str, **attrs: float) -> list[Node]:
        last = Node(op, list(inputs), self.node.outputs, attrs, self.node.name)
        return [*self.nodes, last]


def _dequantized(graph: Graph, node: Node) -> list[Node]:
    """A weight that no integer operator took is a float constant."""
    if node.output in graph.outputs or any(t and t not in graph.constants for t in node.inputs):
        return [node]
    values = [graph.constants[t] if t else None for t in node.inputs]
    (graph.constants[node.output],) = reference.evaluate(node, values)
    return []


def _row_softmax(graph: Graph, node: Node) -> list[Node]:
    """Softmax of float32 along the last axis has a kernel of its own."""
    type_ = graph.types[node.output]
    if type_.dtype == "float32" and node.attrs["axis"] % type_.rank == type_.rank - 1:
        node = Node("RowSoftmax", node.inputs, node.outputs, {}, node.name)
    return [node]


def _hyperbolic(graph: Graph, node: Node) -> list[Node]:
    """(h / 2) * h and (1 / h) / 2 * (1 / h) with h = exp(x / 2): their sum is cosh, their difference sinh.

    Squaring half of the exponential reaches to where the result overflows.
    """
    steps = _Steps(graph, node, node.output)
    half = steps.constant(0.5, "half")
    root = steps.add("Exp", steps.add("Mul", node.inputs[0], half, hint="halved"), hint="root")
    inverse = steps.add("Reciprocal", root, hint="inverse")
    grown = steps.add("Mul", steps.add("Mul", root, half, hint="half_root"), root, hint="grown")
    halved = steps.add("Mul", inverse, half, hint="half_inverse")
    shrunk = steps.add("Mul", halved, inverse, hint="shrunk")
    return steps.end("Add" if node.op == "Cosh" else "Sub", grown, shrunk)


def _celu(graph: Graph, node: Node) -> list[Node]:
    """alpha * elu(x / alpha)."""
    steps = _Steps(graph, node, node.output)
    alpha = steps.constant(node.attrs["alpha"], "alpha")
    scaled = steps.add("Div", node.inputs[0], alpha, hint="scaled")
    return steps.end("Mul", steps.add("Elu", scaled, hint="elu", alpha=1.0), alpha)


def _gather(graph: Graph, node: Node) -> list[Node]:
    """TVM reads wherever an index points to: what lies outside is taken from the nearest end."""
    data, indices = node.inputs
    if indices in graph.constants:
        return [node]
    size = graph.types[data].shape[node.attrs["axis"]]
    steps = _Steps(graph, node, indices)
    below = steps.add("Min", indices, steps.constant(size - 1, "last"), hint="at_most")
    inside = steps.add("Max", below, steps.constant(-size, "first"), hint="inside")
    return steps.end("Gather", data, inside, **node.attrs)


_SPELLINGS: dict[str, Callable[[Graph, Node], list[Node]]] = {
    "Celu": _celu,
    "Cosh": _hyperbolic,
    "DequantizeLinear": _dequantized,
    "Gather": _gather,
    "Sinh": _hyperbolic,
    "Softmax": _row_softmax,
}
