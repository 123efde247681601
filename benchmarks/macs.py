"""Count the multiply-accumulates of an ONNX model with fixed shapes."""

import math
from pathlib import Path

import onnx


def count_macs(path: Path) -> int:
    """Multiply-accumulates of all convolutions and matrix products of one run of a float model."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
    total = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        first, second, out = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
        if node.op_type == "Conv":
            total += math.prod(out) * math.prod(second[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(first) * math.prod(second[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(out) * first[-2 if transposed else -1]
    return total
