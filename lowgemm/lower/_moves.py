"""Kernel calls that put codes elsewhere: reshape, transpose, slice, concatenate."""

import numpy as np

from lowgemm import schedules, topi
from lowgemm.graph import Node, TensorType
from lowgemm.lower._context import Context, arranged, storage_order
from lowgemm.lower._elementwise import lut
from lowgemm.lower._program import Operand
from lowgemm.passes import Quantization


def move(context: Context, node: Node) -> None:
    program, graph, attrs = context.program, context.graph, node.attrs
    x, out = node.inputs[0], node.outputs[0]
    shape, out_shape = graph.types[x].shape, graph.types[out].shape
    perm = tuple(range(len(shape)))
    begin, step, mid = (0,) * len(shape), (1,) * len(shape), shape
    if attrs["op"] == "Transpose":
        perm = tuple(int(p) for p in attrs.get("perm") or reversed(range(len(shape))))
    elif attrs["op"] == "Slice":
        begin_, step_ = list(begin), list(step)
        rank = len(shape)
        axes = attrs.get("axes") or range(len(attrs["starts"]))
        for i, axis in enumerate(int(a) % rank for a in axes):
            step_[axis] = int((attrs.get("steps") or [1] * rank)[i])
            start = int(attrs["starts"][i])
            start += shape[axis] if start < 0 else 0
            begin_[axis] = min(max(start, 0), shape[axis] - (1 if step_[axis] < 0 else 0))
        begin, step, mid = tuple(begin_), tuple(step_), out_shape
    context.declare(out)
    in_order, out_order = (storage_order(graph.types[tensor]) for tensor in (x, out))
    # One long index array tells whether the move is the identity on memory.
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(arranged(shape, in_order))
    logical = index.transpose(np.argsort(in_order))
    for axis in range(len(shape)):
        taken = begin[axis] + np.arange(mid[axis]) * step[axis]
        logical = np.take(logical, taken, axis=axis)
    result = logical.transpose(perm).reshape(out_shape).transpose(out_order).reshape(-1)
    free = x not in program.inputs and out not in program.outputs
    if free and np.array_equal(result, np.arange(index.size)):
        program.aliases[out] = x
        return
    key = (
        tuple(shape),
        in_order,
        begin,
        step,
        tuple(perm),
        mid,
        tuple(out_shape),
        out_order,
        graph.types[x].dtype,
    )
    symbol = program.kernel("move", key, lambda: schedules.schedule_elementwise(topi.move(*key), 1))
    args = [
        program.operand(x, arranged(shape, in_order)),
        program.operand(out, arranged(out_shape, out_order)),
    ]
    program.call(symbol, args, node.name, f"move_{context.target.level}")


def concat(context: Context, node: Node) -> None:
    program, graph, attrs = context.program, context.graph, node.attrs
    logical = graph.types[node.outputs[0]].shape
    axis = int(attrs.get("axis", 1)) % len(logical)
    axis = storage_order(graph.types[node.outputs[0]]).index(axis)
    out = context.declare(node.outputs[0])
    inner = int(np.prod(out.shape[axis + 1 :]))
    rows = int(np.prod(out.shape[:axis]))
    out_run, offset = out.shape[axis] * inner, 0
    for index, (tensor, source) in enumerate(zip(node.inputs, attrs["in"], strict=True)):
        if source != attrs["out"]:
            tensor = _rescale(context, tensor, source, attrs["out"], f"{node.name}/{index}")
        part = program.operand(tensor)
        run = part.shape[axis] * inner
        key = (rows, run, out_run, offset, out.dtype)
        symbol = program.kernel(
            "copy",
            key,
            lambda key=key, run=run: schedules.schedule_copy(topi.copy_into(*key), run),
        )
        args = [
            Operand(part.name, (rows, run), out.dtype),
            Operand(out.name, (rows, out_run), out.dtype),
        ]
        program.call(symbol, args, node.name, f"qconcat_{context.target.level}")
        offset += run


def _rescale(
    context: Context, tensor: str, source: Quantization, out: Quantization, name: str
) -> str:
    """`tensor` with other quantization parameters, by a table."""
    from lowgemm.quant import dequantize_linear, quantize_linear

    low, high = source.range
    codes = np.arange(low, high + 1).astype(source.dtype)
    real = dequantize_linear(codes, np.float32(source.scale), source.zero_point)
    table = quantize_linear(real, np.float32(out.scale), out.zero_point, out.dtype)
    fresh = f"{tensor}/{name}"
    context.graph.types[fresh] = TensorType(context.graph.types[tensor].shape, out.dtype)
    lut(context, Node("QLut", [tensor], [fresh], {"table": table, "in": source, "out": out}, name))
    return fresh
