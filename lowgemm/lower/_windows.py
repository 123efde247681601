"""Kernel calls of pooling, of resizing, and of what else looks at rows of a tensor."""

import numpy as np

from lowgemm import reference, schedules, topi
from lowgemm.graph import Node
from lowgemm.lower._context import Context
from lowgemm.lower._program import Operand


def pool(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    q = program.operand(node.inputs[0])
    average = None
    if node.op == "QAveragePool":
        average = (attrs["out"].dtype, bool(attrs.get("count_include_pad", 0)))
    out = context.declare(node.outputs[0])
    key = (
        q.shape,
        tuple(attrs["kernel_shape"]),
        tuple(attrs.get("strides", (1, 1))),
        tuple(attrs.get("pads", (0, 0, 0, 0))),
        (out.shape[1], out.shape[2]) if len(out.shape) == 4 else (1, 1),
        q.dtype,
        tuple(attrs.get("dilations", (1, 1))),
        average,
    )
    symbol = program.kernel(
        "qpool", key, lambda: schedules.schedule_pool(topi.qpool(*key), q.shape[3])
    )
    args = [q]
    if average:
        source, target = attrs["in"][0], attrs["out"]
        params = (
            source.zero_point,
            source.scale,
            target.scale,
            target.zero_point,
            attrs["low"],
            attrs["high"],
        )
        args.append(program.constant(np.array(params, np.float32)))
    out_shape = (q.shape[0], *key[4], q.shape[3])
    kind = "average" if average else "max"
    args.append(Operand(out.name, out_shape, out.dtype))
    program.call(symbol, args, node.name, f"q{kind}pool_{context.target.level}")


def resize(context: Context, node: Node) -> None:
    program, graph, attrs = context.program, context.graph, node.attrs
    q = program.operand(node.inputs[0])
    out = context.declare(node.outputs[0])
    shapes = [graph.types[tensor].shape for tensor in (node.inputs[0], node.outputs[0])]
    maps = [
        reference.nearest_index(attrs, shapes[0][a], shapes[1][a], attrs["scales"][a])
        for a in (2, 3)
    ]
    key = (q.shape, (out.shape[1], out.shape[2]), q.dtype)
    symbol = program.kernel("qresize", key, lambda: schedules.schedule_resize(topi.qresize(*key)))
    args = [q, *(program.constant(index.astype(np.int32)) for index in maps), out]
    program.call(symbol, args, node.name, f"qresize_{context.target.level}")


def resample(context: Context, node: Node) -> None:
    """Weighted sums along one axis of a float tensor."""
    program, graph = context.program, context.graph
    axis, index = node.attrs["axis"], node.attrs["index"]
    shape = graph.types[node.inputs[0]].shape
    outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    taps, size = index.shape
    key = (outer, shape[axis], inner, size, taps)
    symbol = program.kernel(
        "resample",
        key,
        lambda: schedules.schedule_elementwise(topi.resample(*key), 16, uniform=inner),
    )
    context.declare(node.output)
    args = [
        program.operand(node.inputs[0], (outer, shape[axis], inner)),
        program.constant(index),
        program.constant(node.attrs["weight"]),
        program.operand(node.output, (outer, size, inner)),
    ]
    program.call(symbol, args, node.name, f"resample_{context.target.level}")


def softmax(context: Context, node: Node) -> None:
    """Softmax along the last axis of a float tensor, or of a quantized one."""
    program, params = context.program, node.attrs.get("params")
    shape = context.graph.types[node.inputs[0]].shape
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    codes = params.dtype if params else None
    symbol = program.kernel(
        "softmax",
        (rows, columns, codes),
        lambda: schedules.schedule_softmax(rows, columns, codes),
    )
    context.declare(node.output)
    args = [program.operand(node.inputs[0], (rows, columns))]
    if params:
        args.append(program.constant(np.array([params.scale], np.float32)))
    args.append(program.operand(node.output, (rows, columns)))
    program.call(symbol, args, node.name, f"softmax_{context.target.level}")
