"""Quantized matrix product in saturating 16-bit accumulators, with any number of rows, as tiles of rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import tvm
from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as build

from lowgemm.packing import ConvPacking
from lowgemm.topi._output import OutputForm, OutputStage

# Pairs of the depth after which a 16-bit sum is added to the 32-bit one: 256 of the depth, as in FBGEMM.
FLUSH_PAIRS = 128
# Rows of the left matrix that the sparse part takes at a time, one in each lane.
STRIP = 16
_STAGE = 32


@dataclass(frozen=True)
class Acc16Form:
    """The variant of the operator.

    `rows` is the tile. `transposed` says that the left matrix comes as (depth, rows), `staged` that it goes through a
    copy with padded rows. `outliers` says that there is a sparse part of the weight beside the dense one. `taps`, where
    it is not empty, says that a row is gathered from the data, as that of a convolution whose window has so many
    positions along each of three axes.
    """

    rows: int
    depth: int
    columns: int
    staged: bool
    transposed: bool = False
    outliers: bool = False
    taps: tuple[int, ...] = ()
    output: OutputForm = field(default_factory=OutputForm)


def qgemm_acc16(form: Acc16Form, packing: ConvPacking) -> tvm.tirx.PrimFunc:
    """FBGEMM's acc16 product (`reference.gemm_acc16`) of `tiles` times `rows` rows, then the output stage.

    narrow = clip16(narrow + clip16(a0 * w0 + a1 * w1)) over the pairs of every 256 of the depth, and the sum of these
    modulo 2^32; plus, if there are outliers, their product with the bytes of the left matrix.

    Arguments of the function, in order:
        data uint8 `(tiles, rows, depth)`, or, transposed, `(depth, any)`, or, gathered, `(any,)`;
        weight `packing.packed_shape` int8;
        if gathered, origins int32 `(tiles, rows, 4)`: where the row's image begins in the data, and where in `steps`
        the distances begin of the positions of its window along each axis; steps int32 `(any,)`: distances in
        elements, or -1 for padding; and pad int32 `(1,)`, what padding is made of;
        if outliers, lists int32 `(any,)`, one after the other: the counts u and f; which u of the depth have outliers;
        which f columns have; f + 1 indices, where the outliers of each of these columns begin, and the end; and for
        each outlier an index to the u of the depth, and its value;
        those of the output stage (columns: `panels * lanes`, rows: `(tiles, rows)`), dst `(tiles, rows, columns)`.

    Block names that the schedule looks for: `stage`, `narrow` (sums of whole stretches of 256), `acc` (their sum),
    `last` (the sums of what is left), `codes` and `dst`. All but `codes` and `dst` may be missing.
    """
    lanes = packing.layout.lanes
    tiles = te.var("tiles")
    rows = (tiles, form.rows)
    data_shape = (form.depth, te.var("pitch")) if form.transposed else (*rows, form.depth)
    if form.taps:
        data_shape = (te.var("size"),)
    data = te.placeholder(data_shape, "uint8", name="data")
    weight = te.placeholder(packing.packed_shape, "int8", name="weight")
    args = [data, weight]
    source = data
    width = -(-packing.padded_run // _STAGE) * _STAGE
    if form.taps:
        origins = te.placeholder((*rows, 4), "int32", name="origins")
        steps = te.placeholder((te.var("steps_size"),), "int32", name="steps")
        pad = te.placeholder((1,), "int32", name="pad")
        args += [origins, steps, pad]
        source = _gathered([data, origins, steps, pad], form, width)
    elif form.staged:
        source = te.compute(
            (*rows, width),
            lambda t, x, k: tirx.if_then_else(
                k < form.depth,
                data(k, t * form.rows + x) if form.transposed else data(t, x, k),
                tirx.const(0, "uint8"),
            ),
            name="stage",
        )
    columns = packing.panels * lanes
    sparse = None
    if form.outliers:
        lists = te.placeholder((te.var("lists_size"),), "int32", name="lists")
        args.append(lists)
        sparse = _sparse_product(source, lists, rows, form.depth, columns)
    row_sum = None
    if form.output.weight_zero:
        k = te.reduce_axis((0, form.depth), "k")
        row_sum = te.compute(
            rows, lambda t, x: te.sum(source[t, x, k].astype("int32"), axis=k), name="row_sum"
        )
    terms = _dense_product(source, weight, rows, columns, packing)
    shape = (*rows, form.columns)
    stage = OutputStage(form.output, columns, rows, shape)

    def stored(t, x, o):
        at = (t, x, o if form.columns == columns else tirx.min(o, form.columns - 1))
        total = sum(
            (term[t, x, o].astype("int32") for term in terms[1:]), terms[0][t, x, o].astype("int32")
        )
        if sparse is not None:
            total = total + sparse[t * form.rows + x, o]
        return stage.element(total, o, (t, x), at, row_sum)

    if form.columns == columns:
        dst = te.compute(shape, stored, name="dst")
    else:
        # Whole vectors first: the last one sticks out of the output.
        codes = te.compute((*rows, columns), stored, name="codes")
        dst = te.compute(shape, lambda *at: codes(*at), name="dst")
    return te.create_prim_func([*args, *stage.args, dst])


def _gathered(operands: list[te.Tensor], form: Acc16Form, width: int) -> te.Tensor:
    """uint8 `(tiles, rows, width)`: the window of each row, position by position, and zeros behind."""
    tiles, rows, _ = operands[1].shape
    size = form.depth // math.prod(form.taps)

    def body(ins, outs):
        (data, origins, steps, pad), (stage,) = ins, outs

        def copy(t, x, to, begin) -> None:
            for at, lanes in _pieces(size):
                value = tirx.BufferLoad(data, [_span(begin + at, lanes)])
                build.buffer_store(stage, value, [t, x, _span(to + at, lanes)])

        def fill(t, x, to, value, length) -> None:
            for at, lanes in _pieces(length):
                build.buffer_store(stage, _repeated(value, lanes), [t, x, _span(to + at, lanes)])

        with IRBuilder() as builder, build.serial(tiles) as t, build.serial(rows) as x:
            image, *first = (build.Bind(origins[t, x, i]) for i in range(4))
            with build.grid(*form.taps) as at:  # pyright: ignore[reportArgumentType]
                found = [build.Bind(steps[begin + i]) for begin, i in zip(first, at, strict=True)]
                to = ((at[0] * form.taps[1] + at[1]) * form.taps[2] + at[2]) * size
                with build.If(tirx.all(*(each >= 0 for each in found))):
                    with build.Then():
                        copy(t, x, to, image + sum(found))
                    with build.Else():
                        fill(t, x, to, pad[0].astype("uint8"), size)
            fill(t, x, form.depth, tirx.const(0, "uint8"), width - form.depth)
        return builder.get()

    shape = (tiles, rows, width)
    return te.extern(shape, operands, body, name="gather", dtype="uint8")


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """(begin, length) of vectors of 32 bytes and less that make up `size`."""
    at = 0
    for lanes in (_STAGE, 16, 8, 4, 2, 1):
        while size - at >= lanes:
            yield at, lanes
            at += lanes


def _span(begin, lanes: int):
    return begin if lanes == 1 else tirx.Ramp(begin, 1, lanes)


def _repeated(value, lanes: int):
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def saturated_pair(a0, b0, a1, b1):
    """clip16(a0 * b0 + a1 * b1) as int16 (vpmaddubsw)."""
    wide = [v.astype("int32") for v in (a0, b0, a1, b1)]
    return _clipped(wide[0] * wide[1] + wide[2] * wide[3])


def saturated_sum(a, b):
    """clip16(a + b) of int16 (vpaddsw)."""
    return _clipped(a.astype("int32") + b.astype("int32"))


def _clipped(value):
    low, high = (tirx.const(v, "int32") for v in (-(2**15), 2**15 - 1))
    return tirx.min(tirx.max(value, low), high).astype("int16")


def _dense_product(source, weight, rows, columns: int, packing: ConvPacking) -> list[te.Tensor]:
    """The tensors that add up to the product: int32 of whole stretches, int16 of the rest."""
    lanes = packing.layout.lanes
    whole, rest = divmod(packing.padded_run // 2, FLUSH_PAIRS)
    saturating = te.comm_reducer(saturated_sum, lambda dtype: tirx.const(0, dtype), name="acc16")

    def pair(t, x, o, j):
        w = [weight[o // lanes, 0, 0, j, o % lanes, i] for i in range(2)]
        return saturated_pair(source[t, x, 2 * j], w[0], source[t, x, 2 * j + 1], w[1])

    terms = []
    if whole:
        j = te.reduce_axis((0, FLUSH_PAIRS), "j")
        narrow = te.compute(
            (whole, *rows, columns),
            lambda b, t, x, o: saturating(pair(t, x, o, b * FLUSH_PAIRS + j), axis=j),
            name="narrow",
        )
        b = te.reduce_axis((0, whole), "b")
        terms.append(
            te.compute(
                (*rows, columns),
                lambda t, x, o: te.sum(narrow[b, t, x, o].astype("int32"), axis=b),
                name="acc",
            )
        )
    if rest:
        i = te.reduce_axis((0, rest), "i")
        terms.append(
            te.compute(
                (*rows, columns),
                lambda t, x, o: saturating(pair(t, x, o, whole * FLUSH_PAIRS + i), axis=i),
                name="last",
            )
        )
    return terms


def _sparse_product(source, lists: te.Tensor, rows, depth: int, columns: int) -> te.Tensor:
    """int32 `(rows rounded up to whole strips, columns)`: the bytes of the left matrix times the outliers.

    A strip of rows is turned first, but only where there are outliers; then each lane has a row. Lanes beyond
    the last row compute with whatever is there, and are not stored.
    """
    tiles, tile = rows
    count = tiles * tile
    strips = tirx.floordiv(count + (STRIP - 1), STRIP)

    def body(ins, outs):
        (source, lists), (plus,) = ins, outs
        lanes = tirx.Ramp(tirx.const(0, "int32"), 1, STRIP)
        zeros = tirx.Broadcast(tirx.const(0, "int32"), STRIP)
        with IRBuilder() as builder, build.serial(strips) as s:
            used, filled = build.Bind(lists[0]), build.Bind(lists[1])
            columns_at = build.Bind(used + 2)
            starts_at = build.Bind(columns_at + filled)
            outliers_at = build.Bind(starts_at + filled + 1)
            turned = build.alloc_buffer((depth * STRIP,), "uint8")
            first = s * STRIP
            left = build.Bind(tirx.min(count - first, STRIP))
            with build.serial(used) as u:
                k = build.Bind(lists[u + 2])  # pyright: ignore[reportOperatorIssue]
                with build.serial(left) as x:
                    row = build.Bind(first + x)
                    value = source[tirx.floordiv(row, tile), tirx.floormod(row, tile), k]
                    build.buffer_store(turned, value, [u * STRIP + x])
            with build.serial(left) as x, build.serial(columns // STRIP) as v:
                build.buffer_store(plus, zeros, [first + x, tirx.Ramp(v * STRIP, 1, STRIP)])
            with build.parallel(filled) as f:
                acc = build.alloc_buffer((STRIP,), "int32")
                build.buffer_store(acc, zeros, [lanes])
                begin = build.Bind(lists[starts_at + f])
                with build.serial(lists[starts_at + f + 1] - begin) as n:
                    at = build.Bind(outliers_at + (begin + n) * 2)
                    place = tirx.Ramp(lists[at] * STRIP, 1, STRIP)
                    a = tirx.BufferLoad(turned, [place]).astype(f"int32x{STRIP}")
                    w = tirx.Broadcast(lists[at + 1], STRIP)
                    build.buffer_store(acc, tirx.BufferLoad(acc, [lanes]) + a * w, [lanes])
                column = build.Bind(lists[columns_at + f])
                with build.serial(left) as x:
                    build.buffer_store(plus, acc[x], [first + x, column])
        return builder.get()

    return te.extern((strips * STRIP, columns), [source, lists], body, name="sparse", dtype="int32")
