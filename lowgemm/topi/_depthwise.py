"""Quantized depthwise convolution over two or three axes: every channel its own filter."""

from dataclasses import dataclass
from math import gcd

import tvm
from tvm import te, tirx

from lowgemm.packing import FLAT, ConvShape, DepthwisePacking, Interleaving, word_element
from lowgemm.topi._arith import saturated, word_of
from lowgemm.topi._blocks import block, image_axes, out_images
from lowgemm.topi._output import OutputForm, OutputStage


@dataclass(frozen=True)
class DepthwiseForm:
    """The variant of the operator: input dtype, output stage, and how it is computed.

    `columns` is the width of the register tile; in each block of `block_rows` output rows, rows are `interleaved` anew
    (see `packing.Interleaving`). The sum of `passes` filters is applied: several of 8 bits make up for one that does
    not fit.
    """

    in_dtype: str
    output: OutputForm
    columns: int
    block_rows: int
    interleaved: Interleaving
    passes: int = 1


def qdepthwise2d(
    shape: ConvShape, packing: DepthwisePacking, form: DepthwiseForm
) -> tvm.tirx.PrimFunc:
    """Depthwise convolution of NHWC or NDHWC activations, maybe with several outputs for each input channel.

    acc[n, y, x, o] = sum_{r, c} x[n, y*sh + r*dh - top, x*sw + c*dw - left, o // multiplier] * w[o, r, c]

    then the output stage; int8 x counts as x + 128, as its offset knows. `d = layout.depth` vertically adjacent taps
    form one dot-product group, so the interleaved input holds `d` rows in one word:
    stage[n, h, x, o].i = x[n, h*sh + i*dh - top, x - left, o], with h in blocks. Channels are held as `packing` says.
    In three dimensions n is followed by the plane z, and row groups of all planes of the window are counted together,
    planes outside. Where groups of rows lie side by side, h counts these, and `packing.phases` filters each begin
    elsewhere in one.

    Arguments in order: data `(batch, [depth,] height, width, in_channels)`; weight
    `(blocks, passes * phases * row groups, kernel_w, 4, chunks, 4, d)` s8; pad int32 `(1,)`; those of the output stage
    (columns: `*channels`); dst `(batch, [od,] oh, ow, out_channels)`, with the axes of `depthwise_out_shape`.
    """
    columns, block_rows, interleaving = form.columns, form.block_rows, form.interleaved
    layout, chunks, phases = packing.layout, packing.chunks, packing.phases
    depth = layout.depth
    kernel_h, kernel_w = shape.kernel
    solid, planes = shape.planes != FLAT, shape.planes
    per_plane = packing.groups(kernel_h)
    groups = planes.kernel * per_plane
    blocks = packing.blocks(shape.out_channels)
    held = (blocks, 4, chunks, 4)
    (stride_h, stride_w), (dil_h, dil_w) = shape.strides, shape.dilations
    # The width of a segment, and the same in whole register tiles.
    segment = shape.out_width // packing.segments
    assert segment * packing.segments == shape.out_width, "segments divide a row"
    out_w = -(-segment // columns) * columns
    out_h = packing.rows(shape.out_height)

    deep = (planes.size,) if solid else ()
    data_shape = (shape.batch, *deep, shape.height, shape.width, shape.in_channels)
    data = te.placeholder(data_shape, form.in_dtype, name="data")
    rows_of_weight = form.passes * groups
    weight = te.placeholder(
        (blocks, phases * rows_of_weight, kernel_w, *held[1:], depth), "int8", name="weight"
    )
    pad = te.placeholder((1,), "int32", name="pad")

    # Each output row needs `groups` interleaved rows: of its own, or shared with its neighbours.
    rows, step, staged_rows = min(depth, kernel_h), stride_h, (block_rows, groups)
    if interleaving == "each":
        assert stride_h == planes.kernel == phases == 1, "rows of one plane are shared at stride 1"
        staged_rows = (block_rows + (groups - 1) * depth * dil_h, 1)
    elif interleaving == "aligned":
        assert dil_h == 1 and block_rows * stride_h % depth == 0, "groups lie side by side"
        rows, step = depth, depth
        staged_rows = ((block_rows - 1) * stride_h // depth + per_plane, planes.kernel)
    staged_w = (out_w - 1) * stride_w + (kernel_w - 1) * dil_w + 1
    padded_h = (out_h - 1) * stride_h + ((per_plane - 1) * depth + rows - 1) * dil_h + 1
    if interleaving == "aligned":
        padded_h = (out_h - block_rows) * stride_h + staged_rows[0] * depth
    padded_d = (planes.covered,) if solid else ()
    extents = (*padded_d, padded_h, staged_w)
    padded = _padded(shape, packing, data, pad, extents, segment * stride_w)

    def interleaved(*at):
        n, *z, block, h, g, x, b, j, k, q = at
        if solid:
            plane, g = (g, 0) if interleaving == "aligned" else (g // per_plane, g % per_plane)
            z = [z[0] * planes.stride + plane * planes.dilation]
        top = block * (block_rows * stride_h) + h * step + g * (depth * dil_h)
        elements = [
            padded(n, *z, top + i * dil_h, x, b, k * 16 + j * 4 + q).astype("int32")
            for i in range(rows)
        ]
        return word_of(elements, depth)

    stage_shape = (*out_images(shape), out_h // block_rows, *staged_rows, staged_w, *held)
    stage = block("stage", "n d v h g x b j k q", stage_shape, interleaved)
    widened = weight
    if layout.rhs != "int8":
        widened = te.compute(weight.shape, lambda *at: weight(*at).astype(layout.rhs), name="widen")
    r = te.reduce_axis((0, rows_of_weight), "r")
    c = te.reduce_axis((0, kernel_w), "c")
    i = te.reduce_axis((0, depth), "i")

    def accumulate(*at):
        n, *z, y, x, b, j, k, q = at
        g = r % groups if form.passes > 1 else r
        h = y % block_rows
        row = (h, g)
        if interleaving == "each":
            row = (h + g * (depth * dil_h), 0)
        elif interleaving == "aligned":
            row = (h * stride_h // depth + g % per_plane, g // per_plane)
        word = stage(n, *z, y // block_rows, *row, x * stride_w + c * dil_w, b, j, k, q)
        first = y % phases * groups + (r - g) * phases if phases > 1 else r - g
        factor = widened[b, first + g, c, j, k, q, i].astype("int32")
        return te.sum(word_element(word.astype("int32"), i) * factor, axis=[r, c, i])

    out_rows = (*out_images(shape), out_h)
    acc = block("acc", "n z y x b j k q", (*out_rows, out_w, *held), accumulate)

    out_shape = (*out_images(shape), shape.out_height, shape.out_width, shape.out_channels)
    output = OutputStage(form.output, held, (), out_shape, packs=True)
    per_segment = chunks // packing.segments

    def value(*at):
        *image, y, x, b, j, k, q = at
        found = acc(*at)
        if out_h != shape.out_height:
            y = tirx.min(y, shape.out_height - 1)
        column = tirx.min(k // per_segment * segment + x, shape.out_width - 1)
        o = packing.first(b, shape.out_channels, tirx.min) + k % per_segment * 16 + j * 4 + q
        if shape.out_channels < packing.channels:
            o = tirx.min(o, shape.out_channels - 1)
        return output.unsaturated(found, (b, j, k, q), (), (*image, y, column, o))

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
            b, at = o // packing.channels, o % packing.channels
            if blocks > 1:
                # The last block ends with the last channel. Counted in vectors, so that TVM sees them.
                run = gcd(packing.channels, shape.out_channels)
                ended = tirx.if_then_else(b == blocks - 1, shape.out_channels // run, 0)
                at = (o // run - ended) % (packing.channels // run) * run + o % run
            return packed(*row, x, b, s * per_segment + at // 16, at % 16 // 4, at % 4)

        dst = block("dst", "n z y s x o", dst_shape, element)
    return te.create_prim_func([data, weight, pad, *output.args, dst])


def depthwise_out_shape(shape: ConvShape, packing: DepthwisePacking, columns: int) -> tuple:
    """The axes of `dst`: as the kernel holds them where no tile or block sticks out, else NHWC with row segments."""
    outer = (*out_images(shape), shape.out_height)
    if packing.stores_whole(shape, columns):
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
        o = packing.first(b, shape.out_channels, tirx.min) + chunk % per_segment * 16 + g % 16
        source, inside = [], []
        for axis, extent, h in zip(axes, extents[:-1], rows, strict=True):
            y = h - axis.before
            source.append(y)
            if axis.before or extent - axis.before > axis.size:
                inside += [y >= 0, y < axis.size]
        if left or reach - left > shape.width:
            inside += [x >= 0, x < shape.width]
        if shape.out_channels < packing.channels:
            inside += [o < shape.out_channels]
        value = operand(data(n, *source, x, o // multiplier))
        return tirx.if_then_else(tirx.all(*inside), value, operand(pad[0])) if inside else value

    padded_shape = (shape.batch, *extents, blocks, packing.chunks * 16)
    return block("padded", "n d h w b g", padded_shape, element)
