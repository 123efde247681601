"""Kernel calls of the integer operators."""

from collections.abc import Callable

import numpy as np

from lowgemm import reference, schedules, topi
from lowgemm.graph import Node, TensorType
from lowgemm.lower._context import NHWC, Context, arranged, model_order, storage_order
from lowgemm.lower._layout import declare_written, in_model_order, store_written
from lowgemm.lower._program import Operand
from lowgemm.packing import ConvPacking, ConvShape
from lowgemm.passes import Quantization, add_ratios, mul_ratio

_LETTER = {"uint8": "u8", "int8": "s8", "float32": "f32"}


def _add_params(first: Quantization, second: Quantization, out: Quantization, low: int, high: int):
    ratios = add_ratios(first, second, out)
    values = (first.zero_point, ratios[0], second.zero_point, ratios[1], out.zero_point, low, high)
    return np.array(values, np.float32)


def _conv(context: Context, node: Node) -> None:
    program, graph, target = context.program, context.graph, context.target
    attrs = node.attrs
    x = node.inputs[0]
    shape = graph.types[x].shape
    weight: np.ndarray = attrs["weight"]
    if attrs["gemm"]:
        rows = int(np.prod(shape[:-1]))
        conv = ConvShape(1, 1, rows, shape[-1], weight.shape[0], (1, 1))
    else:
        pads = tuple(attrs.get("pads", (0, 0, 0, 0)))
        conv = ConvShape(
            shape[0],
            shape[2],
            shape[3],
            shape[1],
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            tuple(attrs.get("strides", (1, 1))),
            pads,  # pyright: ignore[reportArgumentType]
            tuple(attrs.get("dilations", (1, 1))),
            int(attrs.get("group", 1)),
        )
    depthwise = conv.groups > 1 and conv.groups == conv.in_channels and attrs["out"] is not None
    if depthwise:
        _depthwise(context, node, conv)
        return
    flat = conv
    if conv.kernel == (1, 1) and conv.strides == (1, 1) and not any(conv.padding):
        pixels = conv.batch * conv.height * conv.width
        if pixels < 400:
            flat = ConvShape(
                1, 1, pixels, conv.in_channels, conv.out_channels, (1, 1), groups=conv.groups
            )
    config = schedules.default_conv_config(flat, target, context.threads)
    layout = schedules.dot_layout(target, config.lanes)
    packing = ConvPacking.of(flat, layout)
    residual = program.tensors[node.inputs[1]].dtype if "add" in attrs else None
    in_dtype = attrs["in"].dtype
    final = attrs["add"]["out"] if residual else attrs["out"]
    out_dtype = final.dtype if final else "float32"
    form = topi.ConvForm(
        in_dtype=in_dtype,
        out_dtype=out_dtype,
        tile=(config.rows, config.columns),
        staged=schedules.needs_stage(flat, packing, in_dtype, config),
        widen=layout.rhs != "int8" and config.widen,
        residual=residual,
    )

    def make():
        func = topi.qconv2d(flat, packing, form)
        return schedules.schedule_qconv2d(func, flat, packing, form, target, config)

    symbol = program.kernel("qconv2d", (flat, packing, form, config), make)
    out_shape = (flat.batch, flat.out_height, flat.out_width, flat.out_channels)
    source = _read(context, node, 0)
    args = [
        Operand(source.name, (flat.batch, flat.height, flat.width * flat.in_channels), in_dtype),
        program.constant(packing.pack(weight)),
        program.constant(packing.pad_channels(_bias(attrs, flip=layout.lhs == "uint8"))),
        program.constant(packing.pad_channels(attrs["scale"])),
    ]
    if form.staged:
        args.append(program.constant(np.array([attrs["in"].zero_point], np.int32)))
    if attrs["out"] is not None:
        out = attrs["out"]
        args.append(
            program.constant(np.array([out.zero_point, attrs["low"], attrs["high"]], np.float32))
        )
    if residual:
        add = attrs["add"]
        args.append(Operand(_read(context, node, 1).name, out_shape, residual))
        args.append(
            program.constant(
                _add_params(*add["in"], out=add["out"], low=add["low"], high=add["high"])
            )
        )
    kernel = (
        f"{'qgemm' if attrs['gemm'] else 'qconv2d'}_{_LETTER[in_dtype]}s8{_LETTER[out_dtype]}"
        f"_{config.rows}x{config.columns}x{config.vectors * config.lanes}_{target.level}"
    )
    _finish_conv(context, node, symbol, args, out_shape, out_dtype, kernel, conv.macs)


def _read(context: Context, node: Node, index: int) -> Operand:
    """An operand of a convolution as it is stored, of a GEMM in the model's order, which has the depth last."""
    tensor = node.inputs[index]
    if node.attrs["gemm"]:
        return in_model_order(context, tensor, node.name)
    return context.program.operand(tensor)


def _finish_conv(context, node, symbol, args, out_shape, out_dtype, kernel, macs) -> None:
    program, out = context.program, node.outputs[0]
    order = model_order(context.graph.types[out]) if node.attrs["gemm"] else NHWC
    written = declare_written(context, out, order)
    target = Operand(program.resolve(written), out_shape, out_dtype)
    program.call(symbol, [*args, target], node.name, kernel, macs)
    store_written(context, out, written, order, node.name)


def _bias(attrs: dict, flip: bool) -> np.ndarray:
    """bias - zero_point * sum w, so that the kernel accumulates raw codes (`flip`: s8 ones moved by 128 to u8)."""
    weight = attrs["weight"].astype(np.int64)
    point = attrs["in"].zero_point + (128 if flip and attrs["in"].dtype == "int8" else 0)
    total = attrs["bias"].astype(np.int64) - point * weight.reshape(weight.shape[0], -1).sum(1)
    return total.astype(np.int32)


def _depthwise(context: Context, node: Node, conv: ConvShape) -> None:
    program, target, attrs = context.program, context.target, node.attrs
    config = schedules.default_depthwise_config(conv, target)
    packing = schedules.depthwise_packing(target, config.segments)
    shared = schedules.shares_rows(conv, packing.layout, config)
    source, final = attrs["in"], attrs["out"]
    multiplier = conv.out_channels // conv.in_channels

    def make():
        func = topi.qdepthwise2d(
            conv, packing, source.dtype, final.dtype, config.columns, shared, multiplier
        )
        return schedules.schedule_qdepthwise2d(func, conv, packing, final.dtype, target, config)

    symbol = program.kernel(
        "qdepthwise2d", (conv, packing, source.dtype, final.dtype, config), make
    )
    out_shape = topi.depthwise_out_shape(conv, packing, config.columns)
    args = [
        program.operand(node.inputs[0], (conv.batch, conv.height, conv.width, conv.in_channels)),
        program.constant(packing.pack(attrs["weight"])),
        program.constant(packing.pack_channels(_bias(attrs, flip=True))),
        program.constant(packing.pack_channels(attrs["scale"])),
        program.constant(np.array([source.zero_point], np.int32)),
        program.constant(np.array([final.zero_point, attrs["low"], attrs["high"]], np.float32)),
    ]
    kernel = (
        f"qdepthwise2d_{_LETTER[source.dtype]}s8{_LETTER[final.dtype]}"
        f"_1x{config.columns}x{packing.channels}_{target.level}"
    )
    _finish_conv(context, node, symbol, args, out_shape, final.dtype, kernel, conv.macs)


def _lut(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    operand = program.operand(node.inputs[0])
    size = int(np.prod(operand.shape))
    width = context.target.vector_bits // 8
    # Tables are indexed by the code's byte: signed codes start at 128.
    table = attrs["table"].view(np.uint8)
    if attrs["in"].dtype == "int8":
        table = np.roll(table, 128)
    rows = np.ascontiguousarray(np.tile(table.reshape(16, 16), (1, width // 16)))
    symbol = program.kernel("qlut", (size, width), lambda: topi.lookup(size, width))
    out = context.declare(node.outputs[0])
    args = [_bytes(operand, size), program.constant(rows), _bytes(out, size)]
    program.call(symbol, args, node.name, f"qlut_{width}x_{context.target.level}")


def _bytes(operand: Operand, size: int) -> Operand:
    return Operand(operand.name, (size,), "uint8")


def _add(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    a, b = (program.operand(t) for t in node.inputs)
    out = context.declare(node.outputs[0])
    size = int(np.prod(a.shape))
    symbol = program.kernel(
        "qadd",
        (size, a.dtype, b.dtype, out.dtype),
        lambda: schedules.schedule_elementwise(topi.qadd(size, a.dtype, b.dtype, out.dtype), 16),
    )
    params = _add_params(*attrs["in"], out=attrs["out"], low=attrs["low"], high=attrs["high"])
    flat = [Operand(o.name, (size,), o.dtype) for o in (a, b, out)]
    program.call(
        symbol,
        [*flat[:2], program.constant(params), flat[2]],
        node.name,
        f"qadd_{context.target.level}",
    )


def _mul(context: Context, node: Node) -> None:
    program, attrs = context.program, node.attrs
    a, b = (program.operand(t) for t in node.inputs)
    out = context.declare(node.outputs[0])
    channels = a.shape[-1]
    pixels = int(np.prod(a.shape)) // channels
    per_channel = int(np.prod(b.shape)) == channels and pixels > 1
    key = (pixels, channels, per_channel, a.dtype, b.dtype, out.dtype)
    symbol = program.kernel(
        "qmul", key, lambda: schedules.schedule_elementwise(topi.qmul(*key), 16, uniform=channels)
    )
    first, second = attrs["in"]
    ratio = mul_ratio(first, second, attrs["out"])
    points = (attrs["out"].zero_point, attrs["low"], attrs["high"])
    params = np.array((first.zero_point, second.zero_point, ratio, *points), np.float32)
    other = (channels,) if per_channel else (pixels, channels)
    args = [
        Operand(a.name, (pixels, channels), a.dtype),
        Operand(b.name, other, b.dtype),
        program.constant(params),
        Operand(out.name, (pixels, channels), out.dtype),
    ]
    program.call(symbol, args, node.name, f"qmul_{context.target.level}")


def _pool(context: Context, node: Node) -> None:
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


def _concat(context: Context, node: Node) -> None:
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
    _lut(context, Node("QLut", [tensor], [fresh], {"table": table, "in": source, "out": out}, name))
    return fresh


def _resize(context: Context, node: Node) -> None:
    program, graph, attrs = context.program, context.graph, node.attrs
    q = program.operand(node.inputs[0])
    out = context.declare(node.outputs[0])
    shapes = [graph.types[tensor].shape for tensor in (node.inputs[0], node.outputs[0])]
    maps = [
        reference.nearest_index(attrs, shapes[0][a], shapes[1][a], attrs["scales"][a])
        for a in (2, 3)
    ]
    key = (q.shape, (out.shape[1], out.shape[2]), q.dtype)
    symbol = program.kernel(
        "qresize",
        key,
        lambda: schedules.schedule_elementwise(topi.qresize(*key), 32, uniform=q.shape[3]),
    )
    args = [q, *(program.constant(index.astype(np.int32)) for index in maps), out]
    program.call(symbol, args, node.name, f"qresize_{context.target.level}")


def _qmove(context: Context, node: Node) -> None:
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


def _quantize(context: Context, node: Node) -> None:
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


def _dequantize(context: Context, node: Node) -> None:
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


HANDLERS: dict[str, Callable[[Context, Node], None]] = {
    "QConv": _conv,
    "QLut": _lut,
    "QAdd": _add,
    "QMul": _mul,
    "QAveragePool": _pool,
    "QMaxPool": _pool,
    "QConcat": _concat,
    "QResize": _resize,
    "QMove": _qmove,
    "Quantize": _quantize,
    "Dequantize": _dequantize,
}
