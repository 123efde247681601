"""Products and convolutions that nobody thought of equal the oracle, bit for bit.

Compiling takes longer than anything else, so kernels come from pools that a seed decides, and each serves many
examples: what a kernel is not compiled for (rows, data, strides, groups, zero points, multipliers) is drawn for each.
`pytest --hypothesis-profile=thorough` takes more kernels and 2000 examples a level of either operator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowgemm import ops, reference
from lowgemm.ops import _conv_kernels
from lowgemm.packing import ConvPacking, ConvShape, dot_layout
from lowgemm.targets import LEVELS, CpuTarget
from lowgemm.tiling import conv_lanes, summing_target

import emulated
from gemm_check import CODES, Product, added, same, stage, with_stride
from isa import isas, record_conformance
from kernels import HARD_DATA, full_range

THOROUGH = settings.get_current_profile_name() == "thorough"
POOLS, KERNELS, EXAMPLES = (10, 7, 200) if THOROUGH else (1, 8, 150)


def lone(rng, x_shape, dtype, w_shape):
    """Weights of the whole range, each among zeros: sums of 16 bits hold their products with any codes."""
    apart = np.indices(w_shape).sum(0) % 8 == 0
    return full_range(rng, x_shape, dtype), np.where(apart, full_range(rng, w_shape, "int8"), 0)


DATA = {**HARD_DATA, "lone": lone}


def draw_kernel(data: st.DataObject, pool: list[Any], label: str) -> Any:
    """Any kernel of a pool; where levels are emulated that may be many, fewer, as most of the time is compiling."""
    count = 2 if emulated.current is not None and not THOROUGH else len(pool)
    return pool[data.draw(st.integers(0, count - 1), label=label)]


@dataclass(frozen=True)
class Stage:
    """What an output stage is compiled for: the dtype of its bias, and fields of `ops.Output`."""

    bias: str | None
    fields: dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """What a product's kernel is compiled for. `layout` is that of the left matrix and the output."""

    depth: int
    columns: int
    a_dtype: str
    quantize: str | None
    weight_zero: bool
    row_zero: bool
    layout: str
    stage: Stage


def choose(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def random_stage(rng: np.random.Generator, rows: bool, ranged: bool) -> Stage:
    """Any output stage; `rows`: rows may have scales of their own, `ranged`: they have."""
    dtype = choose(rng, "int32", *CODES, *CODES, "float32", "bfloat16")
    if ranged and dtype == "int32":
        dtype = "float32"
    if dtype == "int32":
        return Stage(choose(rng, None, "int32"), {"dtype": dtype})
    codes = dtype in CODES
    fixed = codes and not ranged and choose(rng, False, False, True)
    fields: dict[str, Any] = {"dtype": dtype, "rounding": "fixed_point" if fixed else "rne"}
    fields["row_scale"] = rows and not fixed and not ranged and choose(rng, False, True)
    bias = choose(rng, None, "int32", "float32")
    if bias == "float32" and (fixed or (codes and (ranged or fields["row_scale"]))):
        bias = "int32"
    fields["activation"] = choose(rng, None, "relu", "relu6", None if fixed else "leaky_relu")
    kinds = CODES if codes else ("float32", "bfloat16")
    fields["residual"] = choose(rng, None, ops.Residual(choose(rng, *kinds)))
    if codes and choose(rng, False, True):
        fields["table"] = full_range(rng, (256,), dtype)
    return Stage(bias, fields)


def random_kernel(rng: np.random.Generator) -> Kernel:
    """Any product of few columns and little depth."""
    depth = choose(rng, 1, 2, 3, 4, 7, 8, 16, 31, 33, int(rng.integers(1, 130)))
    columns = choose(rng, 1, 5, 8, 16, 17, 32, 40, int(rng.integers(1, 100)))
    layout = choose(rng, "plain", "strided", "transposed", "transposed strided")
    quantize = choose(rng, None, None, None, "static", "tensor", "row")
    return Kernel(
        depth=depth + (layout != "plain" and depth == 1),
        columns=columns + (layout != "plain" and columns == 1),
        a_dtype="uint8" if quantize else choose(rng, "uint8", "int8"),
        quantize=quantize,
        weight_zero=choose(rng, False, True),
        row_zero=quantize is None and choose(rng, False, False, True),
        layout=layout,
        stage=random_stage(rng, True, quantize in ("tensor", "row")),
    )


def pools(seed: int, make: Callable[[np.random.Generator], Any]) -> list[list[Any]]:
    generators = map(np.random.default_rng, range(seed, seed + POOLS))
    return [[make(rng) for _ in range(KERNELS)] for rng in generators]


PRODUCTS: list[list[Kernel]] = pools(2000, random_kernel)


def draw_output(
    data: st.DataObject, kernel: Stage, rng, deviation: float, columns: int, groups: int
) -> ops.Output:
    """An output stage with any numbers, for sums of a standard deviation."""
    fields = dict(kernel.fields)
    if fields["dtype"] == "int32":
        if kernel.bias:
            fields["bias"] = rng.integers(-(2**31), 2**31, columns).astype(np.int32)
        return ops.Output(**fields)
    codes = fields["dtype"] in CODES
    count = data.draw(st.sampled_from([1, groups, columns]), label="multipliers")
    size = data.draw(st.sampled_from([0.5, 2**-8, 60 / deviation, 1 / deviation]), label="size")
    multiplier = size * np.exp(rng.normal(0, 0.3, count))
    if data.draw(st.booleans(), label="power of two"):  # ties
        multiplier = np.exp2(np.rint(np.log2(multiplier)))
    multiplier = np.minimum(multiplier, 0.999).astype(np.float32)
    fields["multiplier"] = multiplier if count > 1 else float(multiplier[0])
    if kernel.bias == "int32":
        fields["bias"] = np.rint(rng.normal(0, deviation, columns)).astype(np.int32)
    if kernel.bias == "float32":
        scale: Any = 3.0
        if codes:
            scale = np.exp(rng.normal(-3, 1, data.draw(st.sampled_from([1, groups, columns]))))
            fields["bias_scale"] = scale.astype(np.float32)
            scale = np.repeat(scale, columns // scale.size) * deviation
        fields["bias"] = (rng.normal(0, 1, columns) * scale).astype(np.float32)
    if fields["activation"] == "leaky_relu":
        fields["slope"] = data.draw(st.sampled_from([0.01, 0.2, 1.0, 1.5, -0.25, 0.0]))
    if codes:
        any_code = {kind: np.iinfo(kind).min + rng.integers(0, 256, 3) for kind in CODES}
        ends = data.draw(st.sampled_from([0, 128, 255, None]), label="zero point")
        zero = (
            any_code[fields["dtype"]][0] if ends is None else np.iinfo(fields["dtype"]).min + ends
        )
        fields["zero_point"] = int(zero)
        if fields["activation"] == "relu6" or fields["residual"]:
            fields["scale"] = data.draw(st.sampled_from([0.02, 0.05, 0.125, 6 / 255]))
        if fields["residual"]:
            kind = fields["residual"].dtype
            fields["residual"] = ops.Residual(
                kind,
                data.draw(st.sampled_from([0.02, 0.05, 0.125])),
                int(any_code[kind][1]),
                data.draw(st.sampled_from([0.03, 0.0625, 0.25])),
                int(any_code[fields["dtype"]][2]),
            )
    return ops.Output(**fields)


def random_residual(rng, output: ops.Output, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What is added, if anything is, as the argument of a call."""
    if output.residual is None:
        return {}
    kind = output.residual.dtype
    if kind in CODES:
        return {"residual": full_range(rng, shape, kind)}
    real = rng.normal(0, 4, shape).astype(np.float32)
    return {
        "residual": real if kind == "float32" else (real.view(np.uint32) >> 16).astype(np.uint16)
    }


def draw_operands(data: st.DataObject, kernel: Kernel, rng) -> tuple[Product, np.ndarray]:
    """A product for the kernel, and its left matrix or matrices, contiguous."""
    depth, columns, plain = kernel.depth, kernel.columns, kernel.layout == "plain"
    # One row or none is contiguous in any layout; matrices in a row are, groups are not.
    rows = data.draw(st.integers(0 if plain else 2, 45), label="rows")
    groups = (
        1 if plain or kernel.quantize == "row" else data.draw(st.integers(1, 3), label="groups")
    )
    lead: tuple[int, ...] = data.draw(
        st.sampled_from([(), (), (1,), (3,), (2, 2)]), label="leading axes"
    )
    batched = len(lead) == 1 and groups == 1 and data.draw(st.booleans(), label="batched")
    kind = data.draw(st.sampled_from(list(DATA)), label="data")
    shape = (*lead, rows, groups * depth)
    parts = next(iter(lead)) if batched else groups
    b_shape = (*lead, depth, columns) if batched else (groups * depth, columns)
    *outer, deep, wide = b_shape
    a, turned = DATA[kind](rng, shape, kernel.a_dtype, (math.prod(outer) * wide, deep))
    b = np.ascontiguousarray(turned.reshape(*outer, wide, deep).swapaxes(-1, -2))
    if kernel.quantize:
        a = rng.normal(0, 1, shape).astype(np.float32)
        a *= np.exp(rng.normal(0, 2, (*shape[:-1], 1))).astype(np.float32)
        a[rng.random(shape) < 0.1] = 0
    b_dtype = data.draw(st.sampled_from(["int8", "uint8"]), label="b")
    middle = 0
    if b_dtype == "uint8":
        b, middle = (b.astype(np.int16) + 128).astype(np.uint8), 128
    count = data.draw(st.sampled_from([1, parts, parts * columns]))
    zeros = np.full(count, middle)
    if kernel.weight_zero:
        zeros = np.iinfo(b_dtype).min + rng.integers(0, 256, count)
        zeros[0] = middle - data.draw(st.integers(1, 128), label="b zero point")
    a_zero: Any = "row" if kernel.row_zero else 0
    if not kernel.row_zero and not kernel.quantize:
        low = np.iinfo(kernel.a_dtype).min
        a_zero = low + data.draw(st.sampled_from([0, 255, 128, 43]), label="a zero point")
    quantize = None
    if kernel.quantize:
        quantize = ops.Quantize("static", 0.03, data.draw(st.sampled_from([0, 100, 255])))
        quantize = quantize if kernel.quantize == "static" else ops.Quantize(kernel.quantize)  # type: ignore[arg-type]
    deviation = 74.0 * 74.0 * math.sqrt(depth)
    if kernel.quantize in ("tensor", "row"):
        deviation /= 64.0  # the scales of rows come on top
    output = draw_output(data, kernel.stage, rng, deviation, columns * groups, groups)
    product = Product(b, kernel.a_dtype, a_zero, zeros, groups, quantize=quantize, output=output)
    if data.draw(st.booleans(), label="b transposed"):
        turned = b.swapaxes(-1, -2)
        if groups > 1:
            turned = np.concatenate(np.split(b, groups)).reshape(groups, depth, columns)
            turned = turned.swapaxes(1, 2).reshape(groups * columns, depth)
        product = replace(product, b=turned, transposed=True)
    return product, a


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_data_has_weights_for_every_kernel(isa: str) -> None:
    """Without VNNI, a weight decides how many of its products are summed in 16 bits."""
    shape = ConvShape(1, 5, 5, 16, 5, (3, 3))
    rng = np.random.default_rng(0)
    found = set()
    for kind in DATA.values():
        _, w = kind(rng, (1, 5, 5, 16), "uint8", (5, 16, 3, 3))

        def fits(view: CpuTarget, w: np.ndarray = w) -> bool:
            packing = ConvPacking.of(shape, dot_layout(view, conv_lanes(shape, view)))
            return packing.sums_fit(packing.pack(w))

        found.add(summing_target(LEVELS[isa], fits).summed)
    assert found == {0, 1, 2}


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("pool", range(POOLS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_product(isa: str, pool: int, data: st.DataObject) -> None:
    kernel = draw_kernel(data, PRODUCTS[pool], "kernel")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    product, a = draw_operands(data, kernel, rng)
    columns = kernel.columns * product.groups
    shape = (*a.shape[:-1], columns)
    given: dict[str, np.ndarray] = {}
    if kernel.row_zero:
        low = np.iinfo(kernel.a_dtype).min
        given["row_zero_point"] = rng.integers(low, low + 256, shape[:-1]).astype(np.int32)
    if product.output.row_scale:
        given["row_scale"] = np.exp(rng.normal(0, 1, shape[:-1])).astype(np.float32)
    given |= random_residual(rng, product.output, shape)
    wanted = product.expected(a, **given)

    transposed, strided = "transposed" in kernel.layout, "strided" in kernel.layout
    extra = data.draw(st.integers(1, 20), label="apart") if strided or transposed else 0
    if transposed:
        a = with_stride(np.ascontiguousarray(a.swapaxes(-1, -2)), extra - 1).swapaxes(-1, -2)
    elif strided:
        a = with_stride(a, extra)
    out = np.zeros(shape, wanted.dtype)
    if strided:
        out = with_stride(out, data.draw(st.integers(0 if not transposed else 1, 20)))
        if "residual" in given:
            given["residual"] = with_stride(given["residual"], data.draw(st.integers(0, 9)))
    packed = product.pack(isa)
    if product.output.dtype == "bfloat16":
        import ml_dtypes

        packed(a, out.view(ml_dtypes.bfloat16), **given)
    else:
        packed(a, out, **given)
    assert (out == wanted).all()
    record_conformance("products at random", isa)


@dataclass(frozen=True)
class Geometry:
    """What a convolution's kernels are compiled for; channels are those of a group, `pads` begins, then ends."""

    sizes: tuple[int, ...]
    batch: int
    ins: int
    outs: int
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    transposed: bool
    more: tuple[int, ...]
    x_dtype: str
    weight_zero: bool
    stage: Stage


def random_geometry(rng: np.random.Generator) -> Geometry:
    """Any convolution of small images that has an output."""
    while True:
        rank = choose(rng, 1, 2, 2, 2, 3)

        def each(*values: int, rank: int = rank) -> tuple[int, ...]:
            return tuple(int(v) for v in rng.choice(values, rank))

        groups = choose(rng, 1, 1, 1, 2, 3)
        ins, outs = int(rng.integers(1, 20)), int(rng.integers(1, 36))
        if choose(rng, False, False, True):  # depthwise
            groups, ins, outs = int(rng.integers(2, 36)), 1, choose(rng, 1, 1, 2)
        strides, transposed = each(1, 1, 2, 3), bool(choose(rng, False, False, True))
        found = Geometry(
            sizes=each(*range(1, 6 if rank == 3 else 12)),
            batch=choose(rng, 1, 1, 2),
            ins=ins,
            outs=outs,
            groups=groups,
            kernel=each(1, 2, 3, *((4, 5) if rank < 3 else ())),
            strides=strides,
            pads=(*each(0, 0, 1, 2), *each(0, 0, 1, 2)),
            dilations=each(1, 1, 2),
            transposed=transposed,
            more=tuple(int(rng.integers(0, s)) if transposed else 0 for s in strides),
            x_dtype=choose(rng, *CODES),
            weight_zero=bool(choose(rng, False, True)),
            stage=random_stage(rng, False, False),
        )
        spans = [d * (k - 1) + 1 for d, k in zip(found.dilations, found.kernel, strict=True)]
        pads = [found.pads[i] + found.pads[i + rank] for i in range(rank)]
        axes = zip(found.sizes, found.strides, spans, pads, found.more, strict=True)
        if all(
            (n - 1) * s + span + more - pad > 0 if transposed else n + pad >= span
            for n, s, span, pad, more in axes
        ):
            return found


CONVOLUTIONS: list[list[Geometry]] = pools(3000, random_geometry)


def random_dense(rng: np.random.Generator) -> Geometry:
    """A convolution that Winograd's kernel computes, with any pads, channels and output stage."""
    found = random_geometry(rng)
    return replace(
        found,
        sizes=tuple(int(v) for v in rng.integers(3, 12, 2)),
        ins=found.groups * found.ins,
        outs=found.groups * found.outs,
        groups=1,
        kernel=(3, 3),
        strides=(1, 1),
        pads=tuple(int(v) for v in rng.choice([0, 1, 2], 4)),
        dilations=(1, 1),
        transposed=False,
        more=(0, 0),
        weight_zero=False,
    )


DENSE: list[list[Geometry]] = [pool[:4] for pool in pools(4000, random_dense)]


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("pool", range(POOLS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_convolution(isa: str, pool: int, data: st.DataObject) -> None:
    case = draw_kernel(data, CONVOLUTIONS[pool], "convolution")
    check_convolution(case, isa, data)
    record_conformance("convolutions at random", isa)


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("pool", range(POOLS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_convolution_of_fewer_products(isa: str, pool: int, data: st.DataObject) -> None:
    case = draw_kernel(data, DENSE[pool], "convolution")
    size = data.draw(st.sampled_from([2, 4]), label="size of tiles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_conv_kernels, "winograd_size", lambda *_: size)
        check_convolution(case, isa, data)
    record_conformance("convolutions of fewer products at random", isa)


def check_convolution(case: Geometry, isa: str, data: st.DataObject) -> None:
    """Compare with the reference on data that are drawn."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    groups, channels = case.groups, case.groups * case.outs
    w_shape = (channels, case.ins, *case.kernel)
    if case.transposed:
        w_shape = (groups * case.ins, case.outs, *case.kernel)
    x_shape = (case.batch, *case.sizes, groups * case.ins)
    kind = data.draw(st.sampled_from(list(DATA)), label="data")
    x, w = DATA[kind](rng, x_shape, case.x_dtype, w_shape)
    middle = 0
    if data.draw(st.booleans(), label="uint8 weight"):
        w, middle = (w.astype(np.int16) + 128).astype(np.uint8), 128
    zeros = np.full(data.draw(st.sampled_from([1, groups, channels]), label="zero points"), middle)
    if case.weight_zero:
        w.flat[:2] = np.iinfo(w.dtype).min, np.iinfo(w.dtype).max  # as many passes each time
        zeros += rng.integers(-9, 10, zeros.size)
        zeros[0] = middle - 10
    x_zero = np.iinfo(case.x_dtype).min + data.draw(
        st.sampled_from([0, 255, 128, 43]), label="x zero"
    )
    deviation = 74.0 * 74.0 * math.sqrt(case.ins * math.prod(case.kernel))
    output = draw_output(data, case.stage, rng, deviation, channels, groups)

    acc = reference.conv_i32(
        x,
        w,
        x_zero,
        zeros,
        case.strides,
        case.pads,
        case.dilations,
        groups,
        transposed=case.transposed,
        output_padding=case.more,
    )
    given = random_residual(rng, output, acc.shape)
    residual = added(output, given["residual"]) if given else None
    wanted = reference.output_stage(
        acc, groups=groups, residual=residual, **stage(output, channels)
    )
    packed = ops.pack_conv(
        w,
        x_dtype=case.x_dtype,
        x_zero_point=x_zero,
        weight_zero_point=zeros,
        strides=case.strides,
        padding=case.pads,
        dilations=case.dilations,
        groups=groups,
        transposed=case.transposed,
        output_padding=case.more,
        output=output,
        target=isa,
    )
    same(packed(x, **given), wanted)
