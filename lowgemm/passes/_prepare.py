"""Rewriting ahead of the fusion, so that more of the graph has a form that it knows."""

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._operators import MOVES
from lowgemm.quant import dequantize_linear


def fold_scalars(graph: Graph) -> None:
    """DequantizeLinear of a constant with one element becomes a float constant: an operand of elementwise operators."""
    for node in list(graph.nodes):
        if node.op != "DequantizeLinear" or any(
            t and t not in graph.constants for t in node.inputs
        ):
            continue
        value, scale, *point = (graph.constants[t] for t in node.inputs if t)
        if value.size == 1 and scale.size == 1 and node.output not in graph.outputs:
            real = dequantize_linear(value, scale.reshape(()), point[0].reshape(()) if point else 0)
            graph.constants[node.output] = real.astype(np.float32).reshape(value.shape)
            graph.nodes.remove(node)


def quantize_before_moving(graph: Graph) -> None:
    """op -> Reshape -> QuantizeLinear becomes op -> QuantizeLinear -> QMove: then the operator can be an integer one.

    Data movement does not look at values, so quantizing commutes with it (if the parameters are per tensor).
    """
    changed = True
    while changed:
        changed = False
        producers, uses = graph.producers(), graph.uses()
        for index, node in enumerate(graph.nodes):
            if (
                node.op != "QuantizeLinear"
                or graph.constants.get(node.inputs[1], np.zeros(2)).size != 1
            ):
                continue
            move = producers.get(node.inputs[0])
            if (
                move is None
                or move.op not in MOVES
                or len(uses[move.output]) > 1
                or move.output in graph.outputs
            ):
                continue
            source = producers.get(move.inputs[0])
            if source is None or _undoes(graph, source, node):
                continue
            out_type = graph.types[node.output]
            moved = graph.add_tensor(
                TensorType(graph.types[move.inputs[0]].shape, out_type.dtype),
                f"{node.output}/unmoved",
            )
            graph.nodes[index : index + 1] = [
                Node(
                    "QuantizeLinear",
                    [move.inputs[0], *node.inputs[1:]],
                    [moved],
                    dict(node.attrs),
                    node.name,
                ),
                Node("QMove", [moved], [node.output], {**move.attrs, "op": move.op}, move.name),
            ]
            graph.nodes.remove(move)
            changed = True
            break


def _undoes(graph: Graph, source: Node, node: Node) -> bool:
    """Whether `source` dequantizes with the parameters that `node` quantizes with: moving the codes is all."""
    values = [[graph.constants.get(t) for t in each.inputs[1:]] for each in (source, node)]
    return source.op == "DequantizeLinear" and all(
        a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(*values, strict=True)
    )
