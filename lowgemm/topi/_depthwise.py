"""Quantized depthwise convolution over two or three axes: every channel its own filter."""

from dataclasses import dataclass

import tvm
from tvm import te, tirx

from lowgemm.packing import FLAT, ConvShape, DepthwisePacking, word_element
from lowgemm.topi._arith import saturated, word_of
from lowgemm.topi._blocks import block, image_axes, out_images
from lowgemm.topi._output import OutputForm, OutputStage


@dataclass(frozen=True)
class DepthwiseForm:
    """The variant of the operator: input dtype, output stage, and how it is computed.

    `columns` is the width of the register tile; `shared` says that output rows share interleaved rows. The sum of
    `passes` filters is applied: several of 8 bits make up for one that does not fit.
    """

    in_dtype: str
    output: OutputForm
    columns: int
    shared: bool = False
    passes: int = 1


def qdepthwise2d(
    shape: ConvShape, packing: DepthwisePacking, form: DepthwiseForm
) -> tvm.tirx.PrimFunc:
    """Depthwise convolution of NHWC or NDHWC activations, maybe with several outputs for each input channel.

    acc[n, y, x, o] = sum_{r, c} x[n, y*sh + r*dh - top, x*sw + c*dw - left, o // multiplier] * w[o, r, c]

    then the output stage; int8 x counts as x + 128, as its offset knows. `d = layout.depth` vertically adjacent taps
    form one dot-product group, so the interleaved input holds `d` rows in one word:
    stage[n, h, x, o].i = x[n, h*sh + i*dh - top, x - left, o]. Channels are held as `packing` says. In three dimensions
    n is followed by the plane z, and row groups of all planes of the window are counted together, planes outside.

    Arguments in order: data `(batch, [depth,] height, width, in_channels)`; weight
    `(passes * row groups, kernel_w, *channels, d)` s8; pad int32 `(1,)`; those of the output stage (columns:
    `*channels`); dst `(batch, [od,] oh, ow, out_channels)`, with the axes of `depthwise_out_shape`.
    """
    columns, shared = form.columns, form.shared
    layout, chunks = packing.layout, packing.chunks
    depth = layout.depth
    kernel_h, kernel_w = shape.kernel
    solid, planes = shape.planes != FLAT, shape.planes
    per_plane = -(-kernel_h // depth)
    groups = planes.kernel * per_plane
    rows = min(depth, kernel_h)
    blocks = packing.blocks(shape.out_channels)
    held = (blocks, 4, chunks, 4)
    (stride_h, stride_w), (dil_h, dil_w) = shape.strides, shape.dilations
    # The width of a segment, and the same in whole register tiles.
    segment = shape.out_width // packing.segments
    assert segment * packing.segments == shape.out_width, "segments divide a row"
    out_w = -(-segment // columns) * columns

    deep = (planes.size,) if solid else ()
    data_shape = (shape.batch, *deep, shape.height, shape.width, shape.in_channels)
    data = te.placeholder(data_shape, form.in_dtype, name="data")
    rows_of_weight = form.passes * groups
    weight = te.placeholder((rows_of_weight, kernel_w, *held, depth), "int8", name="weight")
    pad = te.placeholder((1,), "int32", name="pad")

    # Each output row needs `groups` interleaved rows: of its own, or shared with its neighbours.
    staged_rows = (shape.out_height, groups)
    if shared:
        assert stride_h == planes.kernel == 1, "rows of one plane are shared at stride 1"
        staged_rows = (shape.out_height + (groups - 1) * depth * dil_h, 1)
    step = 1 if shared else stride_h
    staged_w = (out_w - 1) * stride_w + (kernel_w - 1) * dil_w + 1
    padded_h = (shape.out_height - 1) * stride_h + ((per_plane - 1) * depth + rows - 1) * dil_h + 1
    padded_d = ((planes.out - 1) * planes.stride + planes.span,) if solid else ()
    extents = (*padded_d, padded_h, staged_w)
    padded = _padded(shape, packing, data, pad, extents, segment * stride_w)

    def interleaved(*at):
        n, *z, h, g, x, b, j, k, q = at
        if solid:
            z = [z[0] * planes.stride + g // per_plane * planes.dilation]
            g = g % per_plane
        top = h * step + g * (depth * dil_h)
        elements = [
            padded(n, *z, top + i * dil_h, x, b, k * 16 + j * 4 + q).astype("int32")
            for i in range(rows)
        ]
        return word_of(elements, depth)

    stage_shape = (*out_images(shape), *staged_rows, staged_w, *held)
    stage = block("stage", "n d h g x b j k q", stage_shape, interleaved)
    widened = weight
    if layout.rhs != "int8":
        widened = te.compute(weight.shape, lambda *at: weight(*at).astype(layout.rhs), name="widen")
    r = te.reduce_axis((0, rows_of_weight), "r")
    c = te.reduce_axis((0, kernel_w), "c")
    i = te.reduce_axis((0, depth), "i")

    def accumulate(*at):
        n, *z, y, x, b, j, k, q = at
        g = r % groups if form.passes > 1 else r
        row = (y + g * (depth * dil_h), 0) if shared else (y, g)
        word = stage(n, *z, *row, x * stride_w + c * dil_w, b, j, k, q)
        factor = widened[r, c, b, j, k, q, i].astype("int32")
        return te.sum(word_element(word, i, depth) * factor, axis=[r, c, i])

    out_rows = (*out_images(shape), shape.out_height)
    acc = block("acc", "n z y x b j k q", (*out_rows, out_w, *held), accumulate)

    out_shape = (*out_rows, shape.out_width, shape.out_channels)
    output = OutputStage(form.output, held, (), out_shape, packs=True)
    per_segment = chunks // packing.segments

    def value(*at):
        *row, x, b, j, k, q = at
        found = acc(*at)
        column = tirx.min(k // per_segment * segment + x, shape.out_width - 1)
        o = tirx.min(
            b * packing.channels + k % per_segment * 16 + j * 4 + q, shape.out_channels - 1
        )
        return output.unsaturated(found, (b, j, k, q), (), (*row, column, o))

    values = block("values", "n z y x b j k q", acc.shape, value)

    # Back in the order of memory: [block][k][j][q] are consecutive channels.
    packed_shape = (*out_rows, out_w, blocks, chunks, 4, 4)

    def ordered(*at):
        *pixel, b, k, j, q = at
        found = values(*pixel, b, j, k, q)
        if form.output.eight_bit:
            return saturated(found, form.output.dtype)
        return found.astype(form.output.stored)

    packed = block("packed", "n z y x b k j q", packed_shape, ordered)
    dst, dst_shape = packed, depthwise_out_shape(shape, packing, columns)
    if dst_shape != packed_shape:

        def element(*at):
            *row, s, x, o = at
            chunk = s * per_segment + o % packing.channels // 16
            return packed(*row, x, o // packing.channels, chunk, o % 16 // 4, o % 4)

        dst = block("dst", "n z y s x o", dst_shape, element)
    return te.create_prim_func([data, weight, pad, *output.args, dst])


def depthwise_out_shape(shape: ConvShape, packing: DepthwisePacking, columns: int) -> tuple:
    """The axes of `dst`: as the kernel holds them where no tile or block sticks out, else NHWC with row segments."""
    outer = (*out_images(shape), shape.out_height)
    whole = shape.out_width % columns == 0 and shape.out_channels % packing.channels == 0
    if packing.segments == 1 and whole:
        return (*outer, shape.out_width, packing.blocks(shape.out_channels), packing.chunks, 4, 4)
    segment = shape.out_width // packing.segments
    return (*outer, packing.segments, segment, shape.out_channels)


def _padded(shape, packing, data, pad, extents, segment):
    """A copy of the input with its border and surplus channels, as u8: s8 moves up by 128, which the bias takes back.

    `extents` are those of [planes,] rows and columns. Segments of a row begin `segment` columns apart and lie side by
    side.
    """
    left = shape.columns.before
    multiplier = shape.out_channels // shape.in_channels
    per_segment = packing.chunks // packing.segments
    blocks = packing.blocks(shape.out_channels)
    reach = (packing.segments - 1) * segment + extents[-1]
    flip = data.dtype == "int8"
    axes = image_axes(shape)

    def operand(value):
        return (value.astype("int32") + 128).astype("uint8") if flip else value.astype("uint8")

    def element(*at):
        n, *rows, w, b, g = at
        chunk = g // 16
        x = w + chunk // per_segment * segment - left
        o = b * packing.channels + chunk % per_segment * 16 + g % 16
        source, inside = [], []
        for axis, extent, h in zip(axes, extents[:-1], rows, strict=True):
            y = h - axis.before
            source.append(y)
            if axis.before or extent - axis.before > axis.size:
                inside += [y >= 0, y < axis.size]
        if left or reach - left > shape.width:
            inside += [x >= 0, x < shape.width]
        if blocks * packing.channels != shape.out_channels:
            inside += [o < shape.out_channels]
        value = operand(data(n, *source, x, o // multiplier))
        return tirx.if_then_else(tirx.all(*inside), value, operand(pad[0])) if inside else value

    padded_shape = (shape.batch, *extents, blocks, packing.chunks * 16)
    return block("padded", "n d h w b g", padded_shape, element)
