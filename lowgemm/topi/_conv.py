"""Quantized convolution over two or three axes, and GEMM (a 1x1 convolution over rows), as one tensor expression."""

from dataclasses import dataclass

import tvm
from tvm import te

from lowgemm.packing import FLAT, ConvPacking, ConvShape
from lowgemm.topi._blocks import block, out_images
from lowgemm.topi._output import OutputForm, OutputStage
from lowgemm.topi._padded import joined_input, padded_input
from lowgemm.topi._product import accumulated, begun, stored, word_places

# Of the output.
_AXES = "n z y x o"
# Products of an output of several taps up to which sums begin with the offset. Behind more an addition is nothing, and
# LLVM spills sums that begin with what several have in common, where loops over taps sum them up (7x7, 3 channels).
_SHORT = 64


@dataclass(frozen=True)
class ConvForm:
    """The variant of the operator: input dtype, output stage, and how it is computed.

    `tile` is `(rows, columns)` of output pixels that a kernel computes at once: the accumulation is defined on sizes
    rounded up to it (the surplus is computed and dropped), so that no tile needs a guard. `staged` says that the input
    goes through a padded copy in the operand dtype. `paired` is how many panels share an order of words of their own, 0
    if words are in order.
    """

    in_dtype: str
    output: OutputForm
    tile: tuple[int, int]
    staged: bool
    widen: bool
    paired: int = 0


def qconv2d(shape: ConvShape, packing: ConvPacking, form: ConvForm) -> tvm.tirx.PrimFunc:
    """The convolution `shape` of NHWC or NDHWC activations with packed weights.

    acc[n, y, x, o] = sum_{r, c, i} x[n, y*sh + r*dh - top, x*sw + c*dw - left, g(o) + i] * w[o, i, r, c]

    modulo 2^32, where input outside the image is the padding value (the activation's zero point), then the output
    stage. In three dimensions n is followed by the plane z, which is to taps t as y is to r. An int8 x counts as
    x + 128 where the target's instruction takes uint8: the output stage's offset knows. With zero points of weights,
    the places of merged groups' weights that are none must hold them, too.

    Arguments of the function, in order:
        data `(batch, [depth,] height, width * in_channels)` u8 or s8; weight `packing.packed_shape` s8;
        places uint16 `(panels / paired, tap_rows, tap_cols, words + 1)` if paired (`ConvPacking.pair`), which the
        schedule heeds: here words are in order;
        pad int32 `(1,)` if staged; those of the output stage (columns: `panels * lanes`);
        dst `(batch, [od,] *shape.grid, out_channels)`.
    """
    lanes = packing.layout.lanes
    solid = shape.planes != FLAT
    channels = shape.in_channels
    row = shape.width * channels
    planes = (shape.planes.size,) if solid else ()
    data = te.placeholder((shape.batch, *planes, shape.height, row), form.in_dtype, name="data")
    weight = te.placeholder(packing.packed_shape, "int8", name="weight")
    args = [data, weight]
    if form.paired:
        args.append(word_places(packing, form.paired))

    out_h, out_w = (
        -(-pixels // tile) * tile for pixels, tile in zip(shape.grid, form.tile, strict=True)
    )
    strides = (shape.planes.stride, *shape.strides)
    stride_d, stride_h, stride_w = (1, 1, 1) if shape.joined else strides
    dil_h, dil_w = shape.dilations
    if form.staged:
        pad = te.placeholder((1,), "int32", name="pad")
        args.append(pad)
        staged_h = (out_h - 1) * stride_h + (shape.kernel[0] - 1) * dil_h + 1
        staged_w = (out_w - 1) * stride_w + (shape.kernel[1] - 1) * dil_w + 1
        # A padded run reads past the last pixel, against zero weights.
        slack = -(-(packing.padded_run - packing.run) // channels) * channels
        row = staged_w * channels + slack
        planes = ((shape.planes.out - 1) * stride_d + shape.planes.span,) if solid else ()
        copied = joined_input if shape.joined else padded_input
        source = copied(shape, data, pad, (*planes, staged_h, row), packing.layout.lhs)
    else:
        source = data
    weights = weight
    if form.widen:
        weights = te.compute(
            packing.packed_shape, lambda *i: weight(*i).astype(packing.layout.rhs), name="widen"
        )

    r = te.reduce_axis((0, packing.tap_rows), "r")
    c = te.reduce_axis((0, packing.tap_cols), "c")
    panels_per_group = packing.panels // packing.groups

    def source_row(z, y, r):
        """Where row `r` of the window of output row `y` lies: ([plane,] row)."""
        if not solid:
            return (y * stride_h + r * dil_h,)
        plane = z[0] * stride_d + r // shape.kernel[0] * shape.planes.dilation
        return plane, y * stride_h + r % shape.kernel[0] * dil_h

    def group_of(o):
        return o // (panels_per_group * lanes) if packing.groups > 1 else 0

    def left(*at):
        n, *z, y, x, o, j = at
        column = (x * stride_w + c * dil_w) * channels + group_of(o) * packing.group_in + j
        return source(n, *source_row(z, y, r), column)

    extents = (*out_images(shape), out_h, out_w, packing.panels * lanes)
    acc = accumulated(_AXES, extents, left, weights, packing, (r, c))
    row_sum = None
    if form.output.weight_zero:
        row_sum = _window_sums(shape, packing, source, extents[:-1], source_row, (stride_w, dil_w))
    # Groups fill whole vectors (ConvPacking merges them until they do), so accumulator o is output channel o.
    out_shape = (*out_images(shape), *shape.grid, shape.out_channels)
    taps = packing.tap_rows * packing.tap_cols
    short = taps == 1 or taps * packing.padded_run <= _SHORT
    stage = OutputStage(form.output, extents[-1], (), out_shape, packs=True, begun=short)

    def element(*at):
        o = at[-1]
        return stage.element(acc(*at), o, (*at[:-1], group_of(o)), at, row_sum)

    dst = stored(_AXES, out_shape, element, extents if holds_codes(shape, packing, form) else None)
    func = te.create_prim_func([*args, *stage.args, dst])
    return begun(func) if short else func


def _window_sums(shape, packing, source, pixels, source_row, columns) -> te.Tensor:
    """sum_{r, c, i} x[n, y*sh + r*dh - top, x*sw + c*dw - left, g + i] of every window, `pixels` and groups.

    First over the channels of a pixel, then over the window: the instructions of one vector of outputs more at most.
    """
    stride_w, dil_w = columns
    *outer, row = source.shape
    width = row // shape.in_channels

    i = te.reduce_axis((0, packing.group_in), "i")

    def over_channels(*at):
        *n, w, g = at
        index = w * shape.in_channels + g * packing.group_in + i
        return te.sum(source(*n, index).astype("int32"), axis=i)

    extents = (*outer, width, packing.groups)
    sums = block("channel_sums", "n d h w g", extents, over_channels)
    r = te.reduce_axis((0, packing.tap_rows), "r")
    c = te.reduce_axis((0, shape.kernel[1]), "c")

    def over_window(*at):
        n, *z, y, x, g = at
        return te.sum(sums(n, *source_row(z, y, r), x * stride_w + c * dil_w, g), axis=[r, c])

    return block("window_sums", "n z y x g", (*pixels, packing.groups), over_window)


def holds_codes(shape: ConvShape, packing: ConvPacking, form: ConvForm) -> bool:
    """Whether whole vectors of results are held in a block `codes` first, because they stick out of the output."""
    ragged = shape.out_channels % packing.layout.lanes != 0
    return ragged and form.output.eight_bit and not form.output.residual
