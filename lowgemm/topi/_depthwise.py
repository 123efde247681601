"""Quantized depthwise 2-D convolution: every channel its own filter."""

import tvm
from tvm import te, tirx

from lowgemm.packing import ConvShape, DepthwisePacking, word_element
from lowgemm.topi import _epilogue
from lowgemm.topi._arith import word_of


def qdepthwise2d(
    shape: ConvShape,
    packing: DepthwisePacking,
    in_dtype: str,
    out_dtype: str,
    columns: int,
    shared: bool = False,
    multiplier: int = 1,
) -> tvm.tirx.PrimFunc:
    """Depthwise convolution of NHWC activations, `multiplier` outputs per input channel.

    acc[n, y, x, o] = sum_{r, c} x[n, y*sh + r*dh - top, x*sw + c*dw - left, o // multiplier] * w[o, r, c]

    `d = layout.depth` vertically adjacent taps form one dot-product group, so the interleaved input holds `d` rows in
    one word: stage[n, h, x, o].i = x[n, h*sh + i*dh - top, x - left, o]. `columns` is the width of the register tile;
    `shared` says that output rows share interleaved rows. Channels are held as `packing` says.

    Arguments in order: data `(batch, height, width, in_channels)`; weight `(row groups, kernel_w, *channels, d)` s8;
    bias int32 and scale float32, one for each channel; pad int32 `(1,)`; out float32 `(3,)`;
    dst `(batch, oh, ow, out_channels)`.
    """
    layout, chunks = packing.layout, packing.chunks
    depth = layout.depth
    kernel_h, kernel_w = shape.kernel
    groups = -(-kernel_h // depth)
    rows = min(depth, kernel_h)
    blocks = packing.blocks(shape.out_channels)
    held = (blocks, 4, chunks, 4)
    (stride_h, stride_w), (dil_h, dil_w) = shape.strides, shape.dilations
    # The width of a segment, and the same in whole register tiles.
    segment = shape.out_width // packing.segments
    assert segment * packing.segments == shape.out_width, "segments divide a row"
    out_w = -(-segment // columns) * columns

    data = te.placeholder(
        (shape.batch, shape.height, shape.width, shape.in_channels), in_dtype, name="data"
    )
    weight = te.placeholder((groups, kernel_w, *held, depth), "int8", name="weight")
    bias = te.placeholder(held, "int32", name="bias")
    scale = te.placeholder(held, "float32", name="scale")
    pad = te.placeholder((1,), "int32", name="pad")
    out = te.placeholder((_epilogue.REQUANTIZE_PARAMS,), "float32", name="out")

    # Each output row needs `groups` interleaved rows: of its own, or shared with its neighbours.
    staged_rows = (shape.out_height, groups)
    if shared:
        assert stride_h == 1, "rows are shared at stride 1"
        staged_rows = (shape.out_height + (groups - 1) * depth * dil_h, 1)
    step = 1 if shared else stride_h
    staged_w = (out_w - 1) * stride_w + (kernel_w - 1) * dil_w + 1
    padded_h = (shape.out_height - 1) * stride_h + ((groups - 1) * depth + rows - 1) * dil_h + 1
    padded_shape = (shape.batch, padded_h, staged_w, blocks, chunks * 16)
    padded = _padded(shape, packing, data, pad, padded_shape, segment * stride_w, multiplier)

    def interleaved(n, h, g, x, b, j, k, q):
        top = h * step + g * (depth * dil_h)
        elements = [
            padded[n, top + i * dil_h, x, b, k * 16 + j * 4 + q].astype("int32")
            for i in range(rows)
        ]
        return word_of(elements, depth)

    stage_shape = (shape.batch, *staged_rows, staged_w, *held)
    stage = te.compute(stage_shape, interleaved, name="stage")
    widened = weight
    if layout.rhs != "int8":
        widened = te.compute(weight.shape, lambda *at: weight(*at).astype(layout.rhs), name="widen")
    r = te.reduce_axis((0, groups), "r")
    c = te.reduce_axis((0, kernel_w), "c")
    i = te.reduce_axis((0, depth), "i")

    def accumulate(n, y, x, b, j, k, q):
        row = (y + r * (depth * dil_h), 0) if shared else (y, r)
        word = stage[n, *row, x * stride_w + c * dil_w, b, j, k, q]
        factor = widened[r, c, b, j, k, q, i].astype("int32")
        return te.sum(word_element(word, i, depth) * factor, axis=[r, c, i])

    acc = te.compute((shape.batch, shape.out_height, out_w, *held), accumulate, name="acc")

    def code(n, y, x, b, k, j, q):
        held_at = (b, j, k, q)
        stages = (acc[n, y, x, b, j, k, q], bias[held_at], scale[held_at], out)
        return _epilogue.requantize(*stages).astype(out_dtype)

    # Back in the order of memory: [block][k][j][q] are consecutive channels.
    packed_shape = (shape.batch, shape.out_height, out_w, blocks, chunks, 4, 4)
    packed = te.compute(packed_shape, code, name="packed")
    dst, dst_shape = packed, depthwise_out_shape(shape, packing, columns)
    if dst_shape != packed_shape:
        per_segment = chunks // packing.segments

        def element(n, y, s, x, o):
            chunk = s * per_segment + o % packing.channels // 16
            return packed[n, y, x, o // packing.channels, chunk, o % 16 // 4, o % 4]

        dst = te.compute(dst_shape, element, name="dst")
    return te.create_prim_func([data, weight, bias, scale, pad, out, dst])


def depthwise_out_shape(shape: ConvShape, packing: DepthwisePacking, columns: int) -> tuple:
    """The axes of `dst`: as the kernel holds them where no tile or block sticks out, else NHWC with row segments."""
    outer = (shape.batch, shape.out_height)
    whole = shape.out_width % columns == 0 and shape.out_channels % packing.channels == 0
    if packing.segments == 1 and whole:
        return (*outer, shape.out_width, packing.blocks(shape.out_channels), packing.chunks, 4, 4)
    segment = shape.out_width // packing.segments
    return (*outer, packing.segments, segment, shape.out_channels)


def _padded(shape, packing, data, pad, padded_shape, segment, multiplier):
    """A copy of the input with its border and surplus channels, as u8: s8 moves up by 128, which the bias takes back.

    Segments of a row begin `segment` columns apart and lie side by side.
    """
    top, left, _, _ = shape.padding
    per_segment = packing.chunks // packing.segments
    surplus = padded_shape[-2] * packing.channels != shape.out_channels
    reach = (packing.segments - 1) * segment + padded_shape[2]
    flip = data.dtype == "int8"

    def operand(value):
        return (value.astype("int32") + 128).astype("uint8") if flip else value.astype("uint8")

    def element(n, h, w, b, g):
        chunk = g // 16
        y, x = h - top, w + chunk // per_segment * segment - left
        o = b * packing.channels + chunk % per_segment * 16 + g % 16
        inside = []
        if top or padded_shape[1] - top > shape.height:
            inside += [y >= 0, y < shape.height]
        if left or reach - left > shape.width:
            inside += [x >= 0, x < shape.width]
        if surplus:
            inside += [o < shape.out_channels]
        value = operand(data[n, y, x, o // multiplier])
        return tirx.if_then_else(tirx.all(*inside), value, operand(pad[0])) if inside else value

    return te.compute(padded_shape, element, name="padded")
