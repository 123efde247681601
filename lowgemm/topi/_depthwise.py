"""Quantized depthwise 2-D convolution: every channel its own filter."""

import tvm
from tvm import te, tirx

from lowgemm.packing import ConvShape, DotLayout, word_element
from lowgemm.topi import _epilogue
from lowgemm.topi._arith import word_of


def qdepthwise2d(
    shape: ConvShape,
    layout: DotLayout,
    in_dtype: str,
    out_dtype: str,
    columns: int,
    multiplier: int = 1,
    residual: str | None = None,
) -> tvm.tirx.PrimFunc:
    """Depthwise convolution of NHWC activations, `multiplier` outputs per input channel.

    acc[n, y, x, o] = sum_{r, c} x[n, y*sh + r*dh - top, x*sw + c*dw - left, o // multiplier] * w[o, r, c]

    `d = layout.depth` vertically adjacent taps form one dot-product group, so the staged input holds `d` rows
    in one word: stage[n, h, x, o].i = x[n, h + i*dh, x, o]. `columns` is the width of the register tile.

    Arguments in order: data `(batch, height, width, in_channels)`; weight `(row groups, kernel_w, padded, d)` s8;
    bias int32 and scale float32 `(padded,)`; pad int32 `(1,)`; out float32 `(3,)`; with a residual: other and add
    float32 `(7,)`; dst `(batch, oh, ow, out_channels)`. `padded` is out_channels rounded up to whole vectors.
    """
    lanes, depth = layout.lanes, layout.depth
    kernel_h, kernel_w = shape.kernel
    groups = -(-kernel_h // depth)
    channels = shape.out_channels
    padded = -(-channels // lanes) * lanes
    (stride_h, stride_w), (dil_h, dil_w) = shape.strides, shape.dilations
    top, left, _, _ = shape.padding
    out_w = -(-shape.out_width // columns) * columns

    data = te.placeholder(
        (shape.batch, shape.height, shape.width, shape.in_channels), in_dtype, name="data"
    )
    weight = te.placeholder((groups, kernel_w, padded, depth), "int8", name="weight")
    bias = te.placeholder((padded,), "int32", name="bias")
    scale = te.placeholder((padded,), "float32", name="scale")
    pad = te.placeholder((1,), "int32", name="pad")
    args = [data, weight, bias, scale, pad]

    shift = 128 if in_dtype == "int8" and layout.lhs == "uint8" else 0

    # Row `h` of the staged image starts at image row `h * step - top`: only rows that some group begins at exist.
    rows_per_group = depth * dil_h
    staged_w = (out_w - 1) * stride_w + (kernel_w - 1) * dil_w + 1
    staged_h = (shape.out_height - 1) * stride_h + (groups - 1) * rows_per_group + 1

    def stage(n, h, x, o):
        channel = tirx.min(o, channels - 1) if padded != channels else o
        elements = []
        for i in range(depth):
            y, xx = h + i * dil_h - top, x - left
            inside = tirx.all(y >= 0, y < shape.height, xx >= 0, xx < shape.width)
            value = data[n, y, xx, channel // multiplier].astype("int32")
            elements.append(tirx.if_then_else(inside, value, pad[0]) + shift)
        return word_of(elements)

    staged = te.compute((shape.batch, staged_h, staged_w, padded), stage, name="stage")
    widened = weight
    if layout.rhs != "int8":
        widened = te.compute(
            (groups, kernel_w, padded, depth),
            lambda *i: weight(*i).astype(layout.rhs),
            name="widen",
        )
    r = te.reduce_axis((0, groups), "r")
    c = te.reduce_axis((0, kernel_w), "c")
    i = te.reduce_axis((0, depth), "i")
    acc = te.compute(
        (shape.batch, shape.out_height, out_w, padded),
        lambda n, y, x, o: te.sum(
            word_element(
                staged[n, y * stride_h + r * rows_per_group, x * stride_w + c * dil_w, o], i, depth
            )
            * widened[r, c, o, i].astype("int32"),
            axis=[r, c, i],
        ),
        name="acc",
    )
    out = te.placeholder((_epilogue.REQUANTIZE_PARAMS,), "float32", name="out")
    args.append(out)
    out_shape = (shape.batch, shape.out_height, shape.out_width, channels)
    if residual:
        other = te.placeholder(out_shape, residual, name="other")
        params = te.placeholder((_epilogue.ADD_PARAMS,), "float32", name="add")
        args.extend([other, params])

    def value(n, y, x, o):
        stage = (acc[n, y, x, o], bias[o], scale[o], out)
        if residual:
            q = _epilogue.requantize_add(*stage, other[n, y, x, o], params)
        else:
            q = _epilogue.requantize(*stage)
        return q.astype(out_dtype)

    dst = te.compute(out_shape, value, name="dst")
    return te.create_prim_func([*args, dst])
