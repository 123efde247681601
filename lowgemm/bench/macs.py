"""What one run of a model has to compute and to move at least."""

import math

from lowgemm.graph import Graph, Node

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def count_macs(graph: Graph) -> int:
    """Multiply-accumulates of all convolutions and matrix products of one run."""
    return sum(_macs(graph, node) for node in graph.nodes if node.op in _PRODUCTS)


def count_bytes(graph: Graph) -> int:
    """Bytes of the inputs, of the outputs, and of all weights as they are stored (quantized ones take one byte)."""
    producers = graph.producers()
    weights = set()
    for node in graph.nodes:
        if node.op not in _PRODUCTS:
            continue
        for name in node.inputs[:2]:
            origin = producers.get(name)
            if origin and origin.op == "DequantizeLinear":
                name = origin.inputs[0]
            if name in graph.constants:
                weights.add(name)
    return sum(graph.types[name].nbytes for name in (*weights, *graph.inputs, *graph.outputs))


def _macs(graph: Graph, node: Node) -> int:
    first, second = (graph.types[name].shape for name in node.inputs[:2])
    out = graph.types[node.output].shape
    if node.op == "Conv":
        return math.prod(out) * math.prod(second[1:])
    if node.op == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    return math.prod(out) * first[-2 if node.attrs.get("transA") else -1]
