"""Quantized 3x3 convolution in fewer products: Winograd's F(2x2, 3x3) and F(4x4, 3x3) in integers, exact."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import tvm
from tvm import te, tirx

from lowgemm.packing import ConvShape, WinogradPacking
from lowgemm.topi._arith import wrapping_difference, wrapping_product, wrapping_sum
from lowgemm.topi._blocks import block
from lowgemm.topi._output import OutputForm, OutputStage
from lowgemm.topi._padded import padded_input
from lowgemm.topi._product import accumulated, stored


@dataclass(frozen=True)
class WinogradForm:
    """The variant of the operator.

    A tile is `packing.size` pixels of the output each way. `rows` of them are a block; a kernel holds `columns` tiles
    of a block at a time, and the blocks are defined on as many tiles as make whole ones. If filters are transformed
    late, those of `part` channels are at a time.
    """

    in_dtype: str
    output: OutputForm
    rows: int
    columns: int
    part: int = 0


def qwinograd2d(
    shape: ConvShape, packing: WinogradPacking, form: WinogradForm
) -> tvm.tirx.PrimFunc:
    """`qconv2d` of one group of 3x3 filters with stride and dilation 1, by 16 products for 4 pixels instead of 36, or
    by 36 for 16 instead of 144.

    With d the pixels that a tile reads, x and w as there, and the transformed weights U = G w G^T (`WinogradPacking`,
    whose G are integers, multiples of the usual ones):

        V = B^T d B        int16: at most 4 codes are added, or 50 that are subtracted from as many
        M = sum_i V U      int32: sums over channels
        acc = (A^T M A) / 4, or / 576, exactly, because of the factors in each G

    With tiles of 2x2 nothing exceeds 32 bits of up to `tiling.WINOGRAD_CHANNELS` channels. With tiles of 4x4, M and its
    sums are known modulo 2^32, where 9 has an inverse: 64 acc is known modulo 2^32, and so acc, if it is below 2^25
    (`WinogradPacking.sizes`). (Winograd's minimal filtering, as Lavin and Gray, arXiv:1509.09308, write it down.)

    Arguments of the function, in order:
        data `(batch, height, width * in_channels)` u8 or s8; weight `packing.stored_shape` s16, or s8 if
        filters are transformed late; pad int32 `(1,)`;
        those of the output stage (columns: `panels * lanes`); dst `(batch, oh, ow, out_channels)`.

    Block names that the schedule looks for: `stage` (padded input), `half` (B^T d), `moved` (V), `half_filters` (G w),
    `filters` (U), `acc` (M, as a part of it is summed), `products` (M, as it is kept), `half_sums` (A^T M), `sums`
    (acc), `codes` and `dst`.
    """
    lanes, channels = packing.layout.lanes, shape.in_channels
    size, taps = packing.size, packing.tap_rows
    moved_by, summed_by = (_moved_4, _summed_4) if size == 2 else (_moved_6, _summed_6)
    data = te.placeholder(
        (shape.batch, shape.height, shape.width * channels), form.in_dtype, name="data"
    )
    stored_type = "int8" if packing.late else packing.layout.rhs
    weight = te.placeholder(packing.stored_shape, stored_type, name="weight")
    pad = te.placeholder((1,), "int32", name="pad")

    down, across = packing.tiles(shape)
    blocks = -(-down // form.rows)
    tiles = form.rows * across
    groups = -(-tiles // form.columns)
    slack = packing.padded_run - channels
    extents = (size * blocks * form.rows + 2, (size * across + 2) * channels + slack)
    source = padded_input(shape, data, pad, extents, packing.layout.lhs)

    count = (shape.batch, blocks, groups, form.columns)

    def halve(n, b, g, u, r, x, j):
        t = tirx.min(g * form.columns + u, tiles - 1)
        top, left = (b * form.rows + t // across) * size, t % across * size
        return moved_by(r, lambda y: source(n, top + y, (left + x) * channels + j))

    # TVM takes the parentheses off nested sums, and each result would be a sum of its own: so by halves.
    half = block("half", "n b g u r x j", (*count, taps, taps, packing.padded_run), halve)
    length = form.part or packing.padded_run
    parts = (*count[:2], packing.padded_run // length, taps, taps, *count[2:])

    def move(n, b, h, r, c, g, u, j):
        return moved_by(c, lambda x: half(n, b, g, u, r, x, h * length + j))

    moved = block("moved", "n b h r c g u j", (*parts, length), move)

    def left(n, b, h, r, c, g, u, o, j):
        return moved(n, b, h, r, c, g, u, j - h * length)

    filters = _transformed(weight, packing) if packing.late else weight
    acc = accumulated(
        "n b h r c g u o",
        (*parts, packing.panels * lanes),
        left,
        filters,
        packing,
        tap=lambda *at: at[3:5],
        part=(length, lambda *at: at[2] * length),
    )
    held = (*count[:2], taps, taps, *count[2:], packing.panels * lanes)
    h = te.reduce_axis((0, parts[2]), "h")

    def product(n, b, r, c, g, u, o):
        if not packing.late:
            return acc(n, b, 0, r, c, g, u, o)
        return _wrapping_total(acc(n, b, h, r, c, g, u, o), axis=h)

    products = block("products", "n b r c g u o", held, product)

    def half_sum(n, y, x, c, o):
        t = y % (size * form.rows) // size * across + x
        b, g, u = y // (size * form.rows), t // form.columns, t % form.columns
        return summed_by(y % size, lambda r: products(n, b, r, c, g, u, o))

    whole = (shape.batch, size * blocks * form.rows, size * across, packing.panels * lanes)
    half_sums = block("half_sums", "n y x c o", (*whole[:2], across, taps, whole[-1]), half_sum)

    def pixel(n, y, x, o):
        total = summed_by(x % size, lambda c: half_sums(n, y, x // size, c, o))
        return total >> 2 if size == 2 else _divided_by_576(total)

    sums = block("sums", "n y x o", whole, pixel)
    out_shape = (shape.batch, shape.out_height, shape.out_width, shape.out_channels)
    stage = OutputStage(form.output, whole[-1], (), out_shape, packs=True)

    def element(*at):
        return stage.element(sums(*at), at[-1], (*at[:-1], 0), at)

    ragged = shape.out_channels % lanes != 0
    holds = ragged and form.output.eight_bit and not form.output.residual
    dst = stored("n y x o", out_shape, element, whole if holds else None)
    return te.create_prim_func([data, weight, pad, *stage.args, dst])


def _transformed(weight: te.Tensor, packing: WinogradPacking) -> te.Tensor:
    """U = G w G^T of int8 filters w, modulo 2^16, which it fits."""
    row_of = _filter_4 if packing.size == 2 else _filter_6
    panels, taps, _, *cut = packing.packed_shape

    def halve(p, r, x, k, o, d):
        return row_of(r, lambda y: weight[p, k, y, x, o, d].astype("int16"))

    half = block("half_filters", "p r x k o d", (panels, taps, 3, *cut), halve)

    def whole(p, r, c, k, o, d):
        return row_of(c, lambda x: half(p, r, x, k, o, d))

    return block("filters", "p r c k o d", packing.packed_shape, whole)


def _filter_4(k, at: Callable):
    """Row `k` of 2 G of F(2, 3) times (at(0), at(1), at(2)): 2 0, 0 + 2 +- 1, 2 2."""
    plus, minus = (partial(f, kind="int16") for f in (wrapping_sum, wrapping_difference))
    ends = plus(at(0), at(2))
    return _chosen(k, [at(0) << 1, plus(ends, at(1)), minus(ends, at(1)), at(2) << 1])


def _filter_6(k, at: Callable):
    """Row `k` of 24 G of F(4, 3), the last one half, times (at(0), at(1), at(2)): 6 0, -4 (0 + 2 +- 1),
    0 + 4 2 +- 2 1, 12 2."""
    plus, minus = (partial(f, kind="int16") for f in (wrapping_sum, wrapping_difference))
    ends, middle = plus(at(0), at(2)), at(1) << 2
    near = ends * tirx.const(-4, "int16")
    far, twice = plus(at(0), at(2) << 2), at(1) << 1
    return _chosen(
        k,
        [
            at(0) * tirx.const(6, "int16"),
            minus(near, middle),
            plus(near, middle),
            plus(far, twice),
            minus(far, twice),
            at(2) * tirx.const(12, "int16"),
        ],
    )


_wrapping_total = te.comm_reducer(lambda a, b: wrapping_sum(a, b), lambda kind: tirx.const(0, kind))


def _moved_4(k, at: Callable):
    """Row `k` of F(2, 3)'s B^T times (at(0), .., at(3)): 0 - 2, 1 + 2, 2 - 1, 1 - 3."""
    first = at(tirx.Select(k == 0, 0, tirx.Select(k == 2, 2, 1)))
    second = at(tirx.Select(k == 3, 3, tirx.Select(k == 2, 1, 2)))
    return tirx.Select(k == 1, first + second, first - second)


def _summed_4(k, at: Callable):
    """Row `k` of F(2, 3)'s A^T times (at(0), .., at(3)): 0 + 1 + 2, 1 - 2 - 3."""
    return tirx.Select(k == 0, at(0) + at(1) + at(2), at(1) - at(2) - at(3))


def _moved_6(k, at: Callable):
    """Row `k` of F(4, 3)'s B^T times (at(0), .., at(5)): 4 0 - 5 2 + 4, 4 - 4 2 +- (3 - 4 1), 4 - 2 +- 2 (3 - 1),
    4 1 - 5 3 + 5."""
    # Parentheses stay, as those of plain sums would not, and rows share what is in them.
    plus, minus = (partial(f, kind="int16") for f in (wrapping_sum, wrapping_difference))
    even, odd = minus(at(4), at(2) << 2), minus(at(3), at(1) << 2)
    even_once, odd_twice = minus(at(4), at(2)), minus(at(3), at(1)) << 1
    return _chosen(
        k,
        [
            plus(minus(at(0), at(2)) << 2, even_once),
            plus(even, odd),
            minus(even, odd),
            plus(even_once, odd_twice),
            minus(even_once, odd_twice),
            minus(minus(at(5), at(3)), odd_twice << 1),
        ],
    )


def _summed_6(k, at: Callable):
    """Row `k` of F(4, 3)'s A^T times (at(0), .., at(4), 2 at(5)), modulo 2^32."""
    plus, minus = wrapping_sum, wrapping_difference
    near, far = plus(at(1), at(2)), plus(at(3), at(4))
    near_odd, far_odd = minus(at(1), at(2)), minus(at(3), at(4))
    return _chosen(
        k,
        [
            plus(at(0), plus(near, far)),
            plus(near_odd, far_odd << 1),
            plus(near, far << 2),
            plus(plus(near_odd, far_odd << 3), at(5) << 1),
        ],
    )


def _chosen(k, values: list):
    """`values[k]`."""
    found = values[-1]
    for index in reversed(range(len(values) - 1)):
        found = tirx.Select(k == index, values[index], found)
    return found


def _divided_by_576(total):
    """A multiple of 576 modulo 2^32, divided by it: 9 has an inverse, 64 is a shift."""
    return wrapping_product(total, pow(9, -1, 2**32)) >> 6
