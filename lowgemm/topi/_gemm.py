"""Quantized matrix product with any number of rows, as tiles of a number of rows that is fixed."""

from dataclasses import dataclass, field

import tvm
from tvm import te, tirx

from lowgemm.packing import ConvPacking
from lowgemm.topi._arith import f32, round_clamped, to_float
from lowgemm.topi._output import OutputForm, OutputStage
from lowgemm.topi._product import accumulated, stored, word_places

# Rows of the staged operand are whole vectors of so many elements, so that none is stored in part.
_STAGE = 32
# (1 / scale, zero point)
QUANTIZE_PARAMS = 2


@dataclass(frozen=True)
class GemmForm:
    """The variant of the operator.

    `rows` is the tile; with `fewer`, the function also takes tiles of fewer rows, all of one number. `in_dtype` is
    uint8, int8, or float32, which is quantized to uint8 while it is staged: with parameters that are given, or, if
    `dynamic`, with those of each row's range. `transposed` says that the left matrix comes as (depth, rows). `staged`
    says that it goes through a copy in the operand dtype, in whole vectors. `paired` is as in `ConvForm`.
    """

    rows: int
    depth: int
    columns: int
    in_dtype: str
    staged: bool
    transposed: bool = False
    dynamic: bool = False
    fewer: bool = False
    paired: int = 0
    output: OutputForm = field(default_factory=OutputForm)


def qgemm(form: GemmForm, packing: ConvPacking) -> tvm.tirx.PrimFunc:
    """acc[t, r, j] = sum_k A[t, r, k] * W[k, j] modulo 2^32, then the output stage; `tiles` times `rows` rows.

    An int8 A counts as A + 128 where the target's instruction takes uint8: the output stage's zero points know.

    Arguments of the function, in order:
        data `(tiles, rows, depth)`, or, transposed, `(depth, any)`; weight `packing.packed_shape` int8;
        places as in `qconv2d` if paired; quantize float32 (2,) if data is float32 and not dynamic;
        those of the output stage (columns: `panels * lanes`, rows: `(tiles, rows)`), dst `(tiles, rows, columns)`.
    """
    tiles = te.var("tiles")
    rows = (tiles, te.var("rows") if form.fewer else form.rows)
    data_shape = (form.depth, te.var("pitch")) if form.transposed else (*rows, form.depth)
    data = te.placeholder(data_shape, form.in_dtype, name="data")
    weight = te.placeholder(packing.packed_shape, "int8", name="weight")
    args = [data, weight]
    if form.paired:
        args.append(word_places(packing, form.paired))

    def element(t, x, k):
        return data(k, t * rows[1] + x) if form.transposed else data(t, x, k)

    found = None
    if form.in_dtype == "float32":
        if form.dynamic:
            found, inverse = _row_params(element, rows, form.depth)
        else:
            quantize = te.placeholder((QUANTIZE_PARAMS,), "float32", name="quantize")
            args.append(quantize)
    lhs = packing.layout.lhs
    flip = form.in_dtype == "int8" and lhs == "uint8"

    def operand(t, x, k):
        value = element(t, x, k)
        if form.in_dtype == "float32":
            factor, zero = (
                (inverse(t, x), to_float(found[0](t, x))) if found else (quantize[0], quantize[1])
            )
            value = round_clamped(value * factor, -zero, f32(255.0) - zero, zero).astype("int32")
            return value.astype(lhs)
        if flip:
            return (value.astype("int32") + 128).astype("uint8")
        return value.astype(lhs)

    source = data
    if form.staged:
        width = -(-packing.padded_run // _STAGE) * _STAGE
        zero = tirx.const(0, lhs)
        source = te.compute(
            (*rows, width),
            lambda t, x, k: tirx.if_then_else(k < form.depth, operand(t, x, k), zero),
            name="stage",
        )
    row_sum = None
    if form.output.weight_zero:
        k = te.reduce_axis((0, form.depth), "k")
        row_sum = te.compute(
            rows, lambda t, x: te.sum(source[t, x, k].astype("int32"), axis=k), name="row_sum"
        )
    left = source
    if form.fewer:
        # Always whole tiles; what stands in rows that are not there, nobody looks at.
        whole = (tiles, form.rows, packing.padded_run)
        left = te.compute(whole, lambda *at: source(*at), name="left")
    columns = packing.panels * packing.layout.lanes
    extents = (tiles, form.rows, columns)
    acc = accumulated("t x o", extents, lambda t, x, o, j: left(t, x, j), weight, packing)
    shape = (*rows, form.columns)
    stage = OutputStage(form.output, columns, rows, shape, found is not None, packs=True)

    def code(t, x, o):
        at = (t, x, o if form.columns == columns else tirx.min(o, form.columns - 1))
        return stage.element(acc[t, x, o], o, (t, x), at, row_sum, found)

    dst = stored("t x o", shape, code, None if form.columns == columns else (*rows, columns))
    return te.create_prim_func([*args, *stage.args, dst])


_LANES = 16


def _row_params(element, rows, depth: int):
    """(zero points int32, scales float32), and reciprocals of the scales, from each row: `quant.choose_qparams`."""
    whole = depth // _LANES

    def extremes(name, pick, start):
        k = te.reduce_axis((0, whole), "k")
        rest = te.reduce_axis((whole * _LANES, depth), "rest")
        lane = te.reduce_axis((0, _LANES), "lane")
        found = []
        if whole:
            parts = te.compute(
                (*rows, _LANES),
                lambda t, x, v: pick(element(t, x, k * _LANES + v), axis=k),
                name=f"{name}_parts",
            )
            found.append(
                te.compute(rows, lambda t, x: pick(parts[t, x, lane], axis=lane), name=f"{name}_l")
            )
        if depth % _LANES:
            found.append(
                te.compute(
                    rows, lambda t, x: pick(element(t, x, rest), axis=rest), name=f"{name}_r"
                )
            )
        both = tirx.min if start == "min" else tirx.max

        def combined(t, x):
            value = f32(0.0)
            for each in found:
                value = both(each(t, x), value)
            return value

        return te.compute(rows, combined, name=name)

    low, high = extremes("low", te.min, "min"), extremes("high", te.max, "max")
    wide = lambda v: v.astype("float64")  # noqa: E731
    const = lambda v: tirx.const(v, "float64")  # noqa: E731

    def plain(t, x):
        scale = ((wide(high(t, x)) - wide(low(t, x))) / const(255.0)).astype("float32")
        unusable = tirx.any(scale == f32(0.0), f32(1.0) / scale > f32(3.4028234663852886e38))
        return tirx.Select(unusable, f32(0.1), scale)

    raw = te.compute(rows, plain, name="raw_scale")
    small = const(6.1e-5)
    scales = te.compute(
        rows,
        lambda t, x: tirx.Select(raw[t, x] < f32(6.1e-5), f32(6.1e-5), raw[t, x]),
        name="row_scales",
    )

    def zero(t, x):
        lo, hi, scale = wide(low(t, x)), wide(high(t, x)), wide(scales[t, x])
        tiny = raw[t, x] < f32(6.1e-5)
        stretch = small / wide(raw[t, x])
        span = small * const(255.0)
        new_lo = tirx.Select(
            lo == const(0.0), lo, tirx.Select(hi == const(0.0), -span, lo * stretch)
        )
        new_hi = tirx.Select(
            lo == const(0.0), span, tirx.Select(hi == const(0.0), hi, hi * stretch)
        )
        lo, hi = tirx.Select(tiny, new_lo, lo), tirx.Select(tiny, new_hi, hi)
        from_low = -lo / scale
        from_high = const(255.0) - hi / scale
        closer = tirx.abs(lo / scale) < const(255.0) + tirx.abs(hi / scale)
        exact = tirx.Select(closer, from_low, from_high)
        bounded = tirx.min(tirx.max(exact, const(0.0)), const(255.0))
        return tirx.nearbyint(bounded).astype("int32")

    zeros = te.compute(rows, zero, name="row_zeros")
    inverse = te.compute(rows, lambda t, x: f32(1.0) / scales[t, x], name="row_inverse")
    return (zeros, scales), inverse
