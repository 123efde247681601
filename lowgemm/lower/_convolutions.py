"""Kernel calls of convolutions and matrix products."""

from typing import Any

import numpy as np

from lowgemm import schedules, topi
from lowgemm.graph import Node
from lowgemm.lower._context import NHWC, Context, model_order
from lowgemm.lower._layout import declare_written, in_model_order, store_written
from lowgemm.lower._params import add_params
from lowgemm.lower._program import Operand
from lowgemm.packing import (
    ConvPacking,
    ConvShape,
    DepthwisePacking,
    DirectDepthwisePacking,
    GroupedPacking,
    WinogradPacking,
)
from lowgemm.quant import hard_swish_codes
from lowgemm.schedules import KernelTask
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    default_conv_config,
    direct_depthwise_packing,
    direct_depthwise_pays,
    direct_depthwise_takes,
    grouped_fits,
    grouped_packing,
    row_image,
    summing_target,
    winograd_packing,
    winograd_size,
    winograd_takes,
)

# How far below its least code a convolution's hard-swish is looked at.
_MOST_STEPS = 4096
_LETTER = {"uint8": "u8", "int8": "s8", "float32": "f32"}


def conv(context: Context, node: Node) -> None:
    program, graph = context.program, context.graph
    attrs = node.attrs
    x = node.inputs[0]
    shape = graph.types[x].shape
    weight: np.ndarray = attrs["weight"]
    if attrs["gemm"]:
        height, width = row_image(int(np.prod(shape[:-1])), shape[-1], context.threads)
        conv = ConvShape(1, height, width, shape[-1], weight.shape[0], (1, 1))
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
    residual = program.tensors[node.inputs[1]].dtype if "add" in attrs else None
    final = _final(attrs)
    dtypes = (attrs["in"].dtype, final.dtype if final else "float32", residual)
    flat = conv
    if conv.kernel == (1, 1) and conv.strides == (1, 1) and not any(conv.padding):
        pixels = conv.batch * conv.height * conv.width
        if pixels < schedules.FEW_PIXELS:
            flat = ConvShape(
                1, 1, pixels, conv.in_channels, conv.out_channels, (1, 1), groups=conv.groups
            )
    target = summing_target(context.target, lambda view: _sums_fit(flat, weight, view))
    if target.summed == 1:
        paired = target.summing(1, paired=True)
        if _pairs_pay(flat, weight, paired, context.threads):
            target = paired
    task = context.task("qconv2d", flat, *dtypes, target)

    def lanes_fit(packing: GroupedPacking) -> bool:
        return packing.sums_fit(packing.pack(weight))

    if winograd_takes(conv):
        sizes = WinogradPacking.sizes(weight)
        size = winograd_size(conv, target, context.threads, sizes)
        fewer = {
            n: context.task(family, conv, *dtypes)
            for family, n in schedules.WINOGRAD_FAMILIES.items()
            if n in sizes
        }
        tasks = {None: task, **fewer}
        task = context.choose(tasks.pop(size), *tasks.values())
    elif final and not residual and grouped_fits(conv, context.target, lanes_fit):
        groups = context.task("qgrouped2d", conv, *dtypes, context.target.summing(1))
        task = context.choose(groups, task)
    emit = {"qconv2d": _direct, "qgrouped2d": _grouped}.get(task.family, _winograd)
    emit(context, node, task, conv.macs)


def _direct(context: Context, node: Node, task: KernelTask, macs: int) -> None:
    program, attrs, weight = context.program, node.attrs, node.attrs["weight"]
    flat, target = task.shape, task.target
    config = context.config_for(task)
    layout = schedules.dot_layout(target, config.lanes)
    packing = ConvPacking.of(flat, layout)
    packed, places = packing.pack(weight), None
    if target.paired:
        packed, places = packing.pair(packed, config.vectors)
    form = topi.ConvForm(
        in_dtype=task.in_dtype,
        output=_output_form(node, task),
        tile=(config.rows, config.columns),
        staged=schedules.needs_stage(flat, packing, task.in_dtype, config),
        widen=layout.rhs != "int8" and config.widen,
        paired=config.vectors if target.paired else 0,
    )

    def make():
        func = topi.qconv2d(flat, packing, form)
        return schedules.schedule_qconv2d(func, flat, packing, form, target, config)

    symbol = program.kernel("qconv2d", (flat, packing, form, config), make)
    source = _read(context, node, 0)
    args = [
        Operand(
            source.name, (flat.batch, flat.height, flat.width * flat.in_channels), task.in_dtype
        ),
        program.constant(packed),
    ]
    if places is not None:
        args.append(program.constant(places))
    if form.staged:
        args.append(program.constant(np.array([attrs["in"].zero_point], np.int32)))
    args += _stage_arguments(context, node, flat, packing)
    kernel = (
        f"{'qgemm' if attrs['gemm'] else 'qconv2d'}_{_kinds(task)}"
        f"_{config.rows}x{config.columns}x{config.vectors * config.lanes}_{target.level}"
    )
    _finish_conv(context, node, symbol, args, _dense_out_shape(flat), kernel, macs, task)


def _grouped(context: Context, node: Node, task: KernelTask, macs: int) -> None:
    program, conv = context.program, task.shape
    config = context.config_for(task)
    packing = grouped_packing(conv, task.target)
    assert packing is not None
    output = _output_form(node, task)

    def make():
        form = (packing, task.in_dtype, output, task.target, config)
        return schedules.qgrouped2d(conv, *form)

    symbol = program.kernel(task.family, (conv, packing, task.in_dtype, output, config), make)
    args = _pixel_arguments(context, node, conv, packing)
    tile = f"{config.pixels}x{packing.channels}"
    kernel = f"{task.family}_{_kinds(task)}_{tile}_{task.target.level}"
    _finish_conv(context, node, symbol, args, _out_shape(conv), kernel, macs, task)


def _winograd(context: Context, node: Node, task: KernelTask, macs: int) -> None:
    program, attrs, conv = context.program, node.attrs, task.shape
    config = context.config_for(task)
    size = schedules.WINOGRAD_FAMILIES[task.family]
    packing = winograd_packing(conv, task.target, size, config.part > 0)
    output = _output_form(node, task)
    form = topi.WinogradForm(task.in_dtype, output, config.block, config.columns, config.part)

    def make():
        func = topi.qwinograd2d(conv, packing, form)
        return schedules.schedule_qwinograd2d(func, conv, packing, form, task.target, config)

    symbol = program.kernel(task.family, (conv, packing, form, config), make)
    args = [
        program.operand(node.inputs[0], (conv.batch, conv.height, conv.width * conv.in_channels)),
        program.constant(packing.pack(attrs["weight"])),
        program.constant(np.array([attrs["in"].zero_point], np.int32)),
        *_stage_arguments(context, node, conv, packing),
    ]
    kernel = (
        f"{task.family}_{_kinds(task)}"
        f"_{config.columns}x{config.vectors * packing.layout.lanes}_{task.target.level}"
    )
    _finish_conv(context, node, symbol, args, _out_shape(conv), kernel, macs, task)


def _kinds(task: KernelTask) -> str:
    return f"{_LETTER[task.in_dtype]}s8{_LETTER[task.out_dtype]}"


def _out_shape(conv: ConvShape) -> tuple[int, ...]:
    return (conv.batch, conv.out_height, conv.out_width, conv.out_channels)


def _dense_out_shape(conv: ConvShape) -> tuple[int, ...]:
    return (conv.batch, *conv.grid, conv.out_channels)


def _output_form(node: Node, task: KernelTask) -> topi.OutputForm:
    attrs, residual = node.attrs, task.residual
    first = residual is not None and attrs["add"]["residual_first"]
    promises = {}
    if "hard_swish" in attrs or (attrs["out"] and not residual):
        promises = _promises(attrs)
    return topi.OutputForm(task.out_dtype, residual=residual, residual_first=first, **promises)


def _stage_arguments(
    context: Context, node: Node, conv: ConvShape, packing: ConvPacking
) -> list[Operand]:
    """What the output stage of a dense convolution takes."""
    program, attrs = context.program, node.attrs
    offset = _offset(attrs, flip=packing.layout.lhs == "uint8")
    args = [
        program.constant(packing.pad_channels(offset)),
        program.constant(packing.pad_channels(attrs["scale"])),
        program.constant(_out_params(attrs)),
    ]
    if "add" in attrs:
        add = attrs["add"]
        other = _read(context, node, 1)
        args.append(Operand(other.name, _dense_out_shape(conv), other.dtype))
        args.append(program.constant(add_params(add)))
    return args + _hard_swish_arguments(context, attrs)


def _pixel_arguments(
    context: Context,
    node: Node,
    conv: ConvShape,
    packing: DepthwisePacking | DirectDepthwisePacking | GroupedPacking,
) -> list[Operand]:
    """What kernels take that add nothing, and whose input has an axis of pixels and one of channels."""
    program, attrs = context.program, node.attrs
    return [
        program.operand(node.inputs[0], (conv.batch, conv.height, conv.width, conv.in_channels)),
        program.constant(packing.pack(attrs["weight"])),
        program.constant(np.array([attrs["in"].zero_point], np.int32)),
        program.constant(packing.pack_channels(_offset(attrs, flip=True))),
        program.constant(packing.pack_channels(attrs["scale"])),
        program.constant(_out_params(attrs)),
        *_hard_swish_arguments(context, attrs),
    ]


def _hard_swish_arguments(context: Context, attrs: dict) -> list[Operand]:
    swish = attrs.get("hard_swish")
    return [context.program.constant(swish["factors"])] if swish else []


def _sums_fit(shape: ConvShape, weight: np.ndarray, target: CpuTarget) -> bool:
    """Whether the weight's sums fit 16 bits, however many lanes the kernel takes."""
    packings = [ConvPacking.of(shape, schedules.dot_layout(target, n)) for n in {8, target.lanes}]
    return all(packing.sums_fit(packing.pack(weight)) for packing in packings)


def _pairs_pay(shape: ConvShape, weight: np.ndarray, target: CpuTarget, threads: int) -> bool:
    config = default_conv_config(shape, target, threads)
    packing = ConvPacking.of(shape, schedules.dot_layout(target, config.lanes))
    return packing.pairs_pay(packing.pack(weight), config.vectors)


def _depthwise(context: Context, node: Node, conv: ConvShape) -> None:
    target, attrs = context.target, node.attrs
    dtypes = (attrs["in"].dtype, _final(attrs).dtype)
    task = context.task("qdepthwise2d", conv, *dtypes)
    if direct_depthwise_takes(conv, target):
        other = context.task("qdepthwise_direct", conv, *dtypes)
        tasks = (other, task) if direct_depthwise_pays(conv, target) else (task, other)
        task = context.choose(*tasks)
    config = context.config_for(task)
    output = topi.OutputForm(task.out_dtype, **_promises(attrs))
    packing: DepthwisePacking | DirectDepthwisePacking
    if task.family == "qdepthwise_direct":
        packing = direct_depthwise_packing(conv, target, config)
        form = (task.in_dtype, output, target)
        out_shape, tile = _out_shape(conv), (1, config.pixels, packing.order.channels)

        def make():
            return schedules.qdepthwise_direct(conv, packing, *form, config)
    else:
        packing = schedules.depthwise_packing(conv, target, config.segments)
        rows = schedules.interleaving(conv, packing, config)
        form = topi.DepthwiseForm(task.in_dtype, output, config.columns, config.block_rows, rows)
        out_shape = topi.depthwise_out_shape(conv, packing, config.columns)
        tile = (packing.phases, config.columns, packing.channels)

        def make():
            func = topi.qdepthwise2d(conv, packing, form)
            return schedules.schedule_qdepthwise2d(func, conv, packing, form, target, config)

    program = context.program
    symbol = program.kernel(task.family, (conv, packing, form, config), make)
    args = _pixel_arguments(context, node, conv, packing)
    kernel = f"{task.family}_{_kinds(task)}_{'x'.join(map(str, tile))}_{target.level}"
    _finish_conv(context, node, symbol, args, out_shape, kernel, conv.macs, task)


def _finish_conv(context, node, symbol, args, out_shape, kernel, macs, task) -> None:
    program, out = context.program, node.outputs[0]
    order = model_order(context.graph.types[out]) if node.attrs["gemm"] else NHWC
    written = declare_written(context, out, order)
    target = Operand(program.resolve(written), out_shape, task.out_dtype)
    program.call(symbol, [*args, target], node.name, kernel, macs, task=task)
    store_written(context, out, written, order, node.name)


def _read(context: Context, node: Node, index: int) -> Operand:
    """An operand of a convolution as it is stored, of a GEMM in the model's order, which has the depth last."""
    tensor = node.inputs[index]
    if node.attrs["gemm"]:
        return in_model_order(context, tensor, node.name)
    return context.program.operand(tensor)


def _final(attrs: dict) -> Any:
    """The parameters of what a convolution stores, None if that is float32."""
    last = attrs.get("add") or attrs.get("hard_swish") or attrs
    return last["out"]


def _out_params(attrs: dict) -> np.ndarray:
    """`out` of the output stage: zero point, low, high, and a slope that counts for nothing."""
    out = attrs["out"]
    values = (0, 0, 0, 0) if out is None else (out.zero_point, attrs["low"], attrs["high"], 0)
    return np.array(values, np.float32)


def _promises(attrs: dict) -> dict[str, Any]:
    """What an output stage may leave out (`topi.OutputForm`)."""
    out = attrs["out"]
    ends = np.iinfo(out.dtype)
    weight = np.abs(attrs["weight"].astype(np.int64))
    # Codes, and what zero points take off them, are within 255 of each other.
    sums = 255 * weight.reshape(weight.shape[0], -1).sum(1) + np.abs(attrs["bias"].astype(np.int64))
    # Beyond int32 a sum wraps, and is within it again.
    reach = np.minimum(sums, 2**31) * np.abs(attrs["scale"].astype(np.float64))
    if "hard_swish" in attrs:
        kept = _kept_bounds(attrs, reach.max(initial=0))
        return {"zero": False, "bounds": False, "hard_swish": kept}
    whole = (attrs["low"], attrs["high"]) == (ends.min, ends.max)
    return {"zero": bool(out.zero_point), "bounds": not (whole and np.all(reach < topi.FAR))}


def _kept_bounds(attrs: dict, reach: float) -> tuple[str, ...]:
    """The bounds of a convolution's codes beyond which, up to `reach`, its hard-swish does not stay the same."""
    factors, out = attrs["hard_swish"]["factors"], attrs["hard_swish"]["out"]
    slope, half, _, most, fixed = map(float, factors)
    low, high = (attrs[end] - attrs["out"].zero_point for end in ("low", "high"))

    def codes(first: int, last: int) -> set[int]:
        return set(hard_swish_codes(np.arange(first, last + 1), factors, out.dtype).tolist())

    # It is constant up to -3, which `edge` is in steps, and from 0 on it rises up to the largest code that there is.
    edge = max(-half / slope, low - _MOST_STEPS - 1)
    same_below = edge >= low - _MOST_STEPS and len(codes(min(int(edge) - 1, low), low)) == 1
    near = reach * most + abs(fixed) < topi.FAR
    same_above = near and high >= 0 and codes(high, high) == {out.range[1]}
    same = {"low": same_below, "high": same_above}
    return tuple(end for end, is_same in same.items() if not is_same)


def _offset(attrs: dict, flip: bool) -> np.ndarray:
    """bias - zero_point * sum w, so that the kernel accumulates raw codes (`flip`: s8 ones moved by 128 to u8)."""
    weight = attrs["weight"].astype(np.int64)
    point = attrs["in"].zero_point + (128 if flip and attrs["in"].dtype == "int8" else 0)
    total = attrs["bias"].astype(np.int64) - point * weight.reshape(weight.shape[0], -1).sum(1)
    return total.astype(np.int32)
