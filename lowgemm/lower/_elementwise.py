"""Kernel calls of operators that compute each code by itself: tables, sums, products, borders to float."""

from typing import Any

import numpy as np

from lowgemm import schedules, topi
from lowgemm.graph import Node
from lowgemm.lower._context import Context
from lowgemm.lower._params import add_params
from lowgemm.lower._program import Operand
from lowgemm.passes import mul_ratio


def lut(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    operand = program.operand(node.inputs[0])
    size = int(np.prod(operand.shape))
    width = context.target.vector_bits // 8
    # Tables are indexed by the code's byte: signed codes start at 128.
    table = attrs["table"].view(np.uint8)
    if attrs["in"].dtype == "int8":
        table = np.roll(table, 128)
    key = (size, width, context.target.has("avx512vbmi"))
    rows = topi.lookup_table(table, *key[1:])
    symbol = program.kernel("qlut", key, lambda: topi.lookup(*key))
    out = context.declare(node.outputs[0])
    args = [_bytes(operand, size), program.constant(rows), _bytes(out, size)]
    program.call(symbol, args, node.name, f"qlut_{width}x_{context.target.level}")


def _bytes(operand: Operand, size: int) -> Operand:
    return Operand(operand.name, (size,), "uint8")


def add(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    a, b = (program.operand(t) for t in node.inputs)
    out = context.declare(node.outputs[0])
    size = int(np.prod(a.shape))
    symbol = program.kernel(
        "qadd",
        (size, a.dtype, b.dtype, out.dtype),
        lambda: schedules.schedule_elementwise(topi.qadd(size, a.dtype, b.dtype, out.dtype), 16),
    )
    flat = [Operand(o.name, (size,), o.dtype) for o in (a, b, out)]
    program.call(
        symbol,
        [*flat[:2], program.constant(add_params(attrs)), flat[2]],
        node.name,
        f"qadd_{context.target.level}",
    )


def mul(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    a, b, *others = (program.operand(t) for t in node.inputs)
    out = context.declare(node.outputs[0])
    channels = a.shape[-1] if a.shape else 1
    pixels = int(np.prod(a.shape)) // channels
    per_channel = int(np.prod(b.shape)) == channels and pixels > 1
    add = attrs.get("add")
    form = (others[0].dtype, add["residual_first"]) if add else ()
    key: Any = (pixels, channels, per_channel, a.dtype, b.dtype, out.dtype, *form)

    def make():
        func = topi.qmul(*key)
        if per_channel:
            return schedules.schedule_scale(func)
        return schedules.schedule_elementwise(func, 16, uniform=channels)

    symbol = program.kernel("qmul", key, make)
    first, second = attrs["in"]
    ratio = mul_ratio(first, second, attrs["out"])
    points = (attrs["out"].zero_point, attrs["low"], attrs["high"])
    params = np.array((first.zero_point, second.zero_point, ratio, *points), np.float32)
    whole = (pixels, channels)
    args = [
        Operand(a.name, whole, a.dtype),
        Operand(b.name, (channels,) if per_channel else whole, b.dtype),
        program.constant(params),
        *(Operand(other.name, whole, other.dtype) for other in others),
    ]
    if add:
        args.append(program.constant(add_params(add)))
    args.append(Operand(out.name, whole, out.dtype))
    program.call(symbol, args, node.name, f"qmul_{context.target.level}")


def quantize(context: Context, node: Node) -> None:
    program, params = context.program, node.attrs["params"]
    shape = context.graph.types[node.inputs[0]].shape
    symbol = program.kernel(
        "quantize",
        (shape, params.dtype),
        lambda: schedules.schedule_quantize(topi.quantize(shape, params.dtype)),
    )
    out = context.declare(node.outputs[0])
    stored_as = out.shape
    if len(shape) == 4 and (shape[1] == 1 or shape[2] * shape[3] == 1):
        stored_as = shape
    args = [
        program.operand(node.inputs[0], shape),
        program.constant(np.array([params.scale, params.zero_point], np.float32)),
        program.operand(node.outputs[0], stored_as),
    ]
    program.call(symbol, args, node.name, f"quantize_{context.target.level}")


def dequantize(context: Context, node: Node) -> None:
    program, params = context.program, node.attrs["params"]
    shape = context.graph.types[node.outputs[0]].shape
    symbol = program.kernel(
        "dequantize",
        (shape, params.dtype),
        lambda: schedules.schedule_elementwise(topi.dequantize(shape, params.dtype), 16),
    )
    program.declare(node.outputs[0], shape, "float32")
    operand = program.operand(node.inputs[0])
    if len(shape) == 4 and (shape[1] == 1 or shape[2] * shape[3] == 1):
        operand = program.operand(node.inputs[0], shape)
    args = [
        operand,
        program.constant(np.array([params.scale, params.zero_point], np.float32)),
        program.operand(node.outputs[0]),
    ]
    program.call(symbol, args, node.name, f"dequantize_{context.target.level}")
