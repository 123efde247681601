"""Quantized 3x3 convolution in fewer products: Winograd's F(2x2, 3x3) in integers, exact."""

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import te, tirx

from lowgemm.packing import ConvShape, WinogradPacking
from lowgemm.topi._blocks import block
from lowgemm.topi._output import OutputForm, OutputStage
from lowgemm.topi._padded import padded_input
from lowgemm.topi._product import accumulated, stored


@dataclass(frozen=True)
class WinogradForm:
    """The variant of the operator.

    A tile is 2x2 pixels of the output. `rows` of them are a block; a kernel holds `columns` tiles of a block at a
    time, and the blocks are defined on as many tiles as make whole ones.
    """

    in_dtype: str
    output: OutputForm
    rows: int
    columns: int


def qwinograd2d(
    shape: ConvShape, packing: WinogradPacking, form: WinogradForm
) -> tvm.tirx.PrimFunc:
    """`qconv2d` of one group of 3x3 filters with stride and dilation 1, by 16 products for 4 pixels instead of 36.

    With d the 4x4 pixels that a tile reads, x and w as there, and the transformed weights U = (2 G) w (2 G)^T
    (`WinogradPacking`):

        V = B^T d B        int16: at most 4 codes are added
        M = sum_i V U      int32: 16 sums over channels
        acc = (A^T M A) / 4    exactly, because of the 2 in each 2 G

    Nothing here exceeds 32 bits of up to `tiling.WINOGRAD_CHANNELS` channels. (Winograd's minimal filtering, as Lavin
    and Gray, arXiv:1509.09308, write it down.)

    Arguments of the function, in order:
        data `(batch, height, width * in_channels)` u8 or s8; weight `packing.packed_shape` s16; pad int32 `(1,)`;
        those of the output stage (columns: `panels * lanes`); dst `(batch, oh, ow, out_channels)`.

    Block names that the schedule looks for: `stage` (padded input), `half` (B^T d), `moved` (V), `acc` (M, as it is
    summed), `products` (M, as it is kept), `half_sums` (A^T M), `sums` (acc), `codes` and `dst`.
    """
    lanes, channels = packing.layout.lanes, shape.in_channels
    data = te.placeholder(
        (shape.batch, shape.height, shape.width * channels), form.in_dtype, name="data"
    )
    weight = te.placeholder(packing.packed_shape, packing.layout.rhs, name="weight")
    pad = te.placeholder((1,), "int32", name="pad")

    down, across = packing.tiles(shape)
    blocks = -(-down // form.rows)
    tiles = form.rows * across
    groups = -(-tiles // form.columns)
    slack = packing.padded_run - channels
    extents = (2 * blocks * form.rows + 2, (2 * across + 2) * channels + slack)
    source = padded_input(shape, data, pad, extents, (1, 1, 1), packing.layout.lhs)

    count = (shape.batch, blocks, groups, form.columns)

    def halve(n, b, g, u, r, x, j):
        t = tirx.min(g * form.columns + u, tiles - 1)
        top, left = (b * form.rows + t // across) * 2, t % across * 2
        return _moved(r, lambda y: source(n, top + y, (left + x) * channels + j))

    def move(n, b, r, c, g, u, j):
        return _moved(c, lambda x: half(n, b, g, u, r, x, j))

    # TVM takes the parentheses off nested sums, and each result would be a sum of its own: so by halves.
    half = block("half", "n b g u r x j", (*count, 4, 4, packing.padded_run), halve)
    moved = block(
        "moved", "n b r c g u j", (*count[:2], 4, 4, *count[2:], packing.padded_run), move
    )

    def left(n, b, r, c, g, u, o, j):
        return moved(n, b, r, c, g, u, j)

    held = (*count[:2], 4, 4, *count[2:], packing.panels * lanes)
    acc = accumulated("n b r c g u o", held, left, weight, packing, tap=lambda *at: at[2:4])
    products = block("products", "n b r c g u o", held, lambda *at: acc(*at))

    def half_sum(n, y, x, c, o):
        t = y % (2 * form.rows) // 2 * across + x
        b, g, u = y // (2 * form.rows), t // form.columns, t % form.columns
        return _summed(y % 2, lambda r: products(n, b, r, c, g, u, o))

    whole = (shape.batch, 2 * blocks * form.rows, 2 * across, packing.panels * lanes)
    half_sums = block("half_sums", "n y x c o", (*whole[:2], across, 4, whole[-1]), half_sum)

    def pixel(n, y, x, o):
        return _summed(x % 2, lambda c: half_sums(n, y, x // 2, c, o)) >> 2

    sums = block("sums", "n y x o", whole, pixel)
    out_shape = (shape.batch, shape.out_height, shape.out_width, shape.out_channels)
    stage = OutputStage(form.output, whole[-1], (), out_shape, packs=packing.layout.packs)

    def element(*at):
        return stage.element(sums(*at), at[-1], (*at[:-1], 0), at)

    ragged = shape.out_channels % lanes != 0
    holds = ragged and form.output.eight_bit and not form.output.residual
    dst = stored("n y x o", out_shape, element, whole if holds else None)
    return te.create_prim_func([data, weight, pad, *stage.args, dst])


def _moved(k, at: Callable):
    """Row `k` of B^T times (at(0), .., at(3)): 0 - 2, 1 + 2, 2 - 1, 1 - 3."""
    first = at(tirx.Select(k == 0, 0, tirx.Select(k == 2, 2, 1)))
    second = at(tirx.Select(k == 3, 3, tirx.Select(k == 2, 1, 2)))
    return tirx.Select(k == 1, first + second, first - second)


def _summed(k, at: Callable):
    """Row `k` of A^T times (at(0), .., at(3)): 0 + 1 + 2, 1 - 2 - 3."""
    return tirx.Select(k == 0, at(0) + at(1) + at(2), at(1) - at(2) - at(3))
