"""Float Sinh and Cosh by operators that TVM has code for."""

import numpy as np

from lowgemm.graph import Graph, Node


def spell_out_hyperbolic(graph: Graph) -> None:
    """Cosh(x) becomes (h / 2) * h + (1 / h) / 2 * (1 / h) with h = exp(x / 2), Sinh(x) the difference of the two.

    Squaring half of the exponential reaches to where the result overflows.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in ("Sinh", "Cosh"):
            nodes += _spelled_out(graph, node)
        else:
            nodes.append(node)
    graph.nodes = nodes


def _spelled_out(graph: Graph, node: Node) -> list[Node]:
    x, type_ = node.inputs[0], graph.types[node.output]
    half = graph.add_constant(np.array(0.5, type_.dtype), f"{node.output}/half")
    nodes: list[Node] = []

    def add(op: str, *inputs: str, hint: str) -> str:
        out = graph.add_tensor(type_, f"{node.output}/{hint}")
        nodes.append(Node(op, list(inputs), [out], {}, f"{node.name}/{hint}"))
        return out

    root = add("Exp", add("Mul", x, half, hint="halved"), hint="root")
    inverse = add("Reciprocal", root, hint="inverse")
    grown = add("Mul", add("Mul", root, half, hint="half_root"), root, hint="grown")
    shrunk = add("Mul", add("Mul", inverse, half, hint="half_inverse"), inverse, hint="shrunk")
    op = "Add" if node.op == "Cosh" else "Sub"
    return [*nodes, Node(op, [grown, shrunk], [node.output], {}, node.name)]
