"""Weight-only products beside chains of fused multiply-adds, which they are bit for bit, and beside real numbers."""

import threading
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lowgemm import ops, reference, targets
from lowgemm.quant import (
    dequantize_groups,
    fma,
    from_bfloat16,
    quantize_groups,
    to_bfloat16,
    to_float16,
)
from lowgemm.reference import BFLOAT16_ROUNDOFF

from fences import fenced
from isa import isas

FLOATS = ("float32", "float16", "bfloat16")
KINDS = (*FLOATS, "int8", "int4")
# 1 to 6 rows are one tile; 7 two of different heights; 13 three.
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 13)
# depth, columns, most rows. Single ones; a word that is not full, and a panel neither; several panels, a depth of words
# and a rest, and more rows than a block has; more depth than a chunk, and columns for several panels at once.
SIZES = ((1, 1, 13), (7, 5, 13), (41, 33, 100), (1100, 150, 13))


def chain(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sum = fma(a, weight, sum) from 0, the depth rising."""
    total = np.zeros((len(a), weight.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total = fma(a[:, k, None], weight[None, k], total)
    return total


def activation_sums(a: np.ndarray) -> np.ndarray:
    """Of each row: the sums of every eighth element, added up by halves; then the rest."""
    whole = a.shape[1] // 8 * 8
    sums = np.zeros((len(a), 8), np.float32)
    for start in range(0, whole, 8):
        sums = sums + a[:, start : start + 8]
    for lanes in (4, 2, 1):
        sums = sums[:, :lanes] + sums[:, lanes:]
    total = sums[:, 0]
    for k in range(whole, a.shape[1]):
        total = total + a[:, k]
    return total


@dataclass
class Case:
    """A packed weight, and the real one cut into groups with scales."""

    packed: ops.PackedFloatGemm
    groups: list[np.ndarray]
    scales: np.ndarray | None
    # Of int4: codes are summed as 0 to 15, and this many times the sum of activations is added.
    offsets: np.ndarray | None = None

    def expected(self, a: np.ndarray) -> np.ndarray:
        """The sums that `topi._float_gemm` defines."""
        if self.scales is None:
            return chain(a, self.groups[0])
        total = np.zeros((len(a), self.groups[0].shape[1]), np.float32)
        start = 0
        for number, (group, scale) in enumerate(zip(self.groups, self.scales, strict=True)):
            part = a[:, start : start + len(group)]
            if self.offsets is None:
                inner = chain(part, group)
            else:
                offset = self.offsets[None, number]
                inner = fma(offset, activation_sums(part)[:, None], chain(part, group - offset))
            total = fma(inner, scale[None], total)
            start += len(group)
        return total


def case(
    kind: str,
    weight: np.ndarray,
    level: str | targets.CpuTarget,
    group_size: int | None = None,
    zeros: bool = False,
    **options: Any,
) -> Case:
    """`weight` packed as `kind`."""
    if kind in FLOATS:
        kept = {
            "float32": weight,
            "float16": weight.astype(np.float16).astype(np.float32),
            "bfloat16": from_bfloat16(to_bfloat16(weight)),
        }[kind]
        packed = ops.pack_float_gemm(weight, weights=kind, target=level, **options)
        return Case(packed, [kept], None)
    size = group_size or len(weight)
    codes, scales = quantize_groups(weight, size, int(kind[3:]))
    points = np.random.default_rng(7).integers(-8, 8, scales.shape) if zeros else 0 * scales
    packed = ops.pack_float_gemm(
        codes,
        weights=kind,
        scale=scales,
        group_size=group_size,
        zero_point=points.astype(np.int64) if zeros else None,
        target=level,
        **options,
    )
    starts = range(0, len(weight), size)
    groups = [(codes[s : s + size] - points[s // size]).astype(np.float32) for s in starts]
    offsets = (-8 - points).astype(np.float32) if kind == "int4" else None
    return Case(packed, groups, scales, offsets)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_chains_of_fused_multiply_adds(kind: str, isa: str) -> None:
    rng = np.random.default_rng(1)
    for depth, columns, most in SIZES:
        wide = case(kind, normal(rng, depth, columns), isa)
        a = normal(rng, most, depth)
        expected = wide.expected(a)
        for rows in {*ROWS, most}:
            assert (wide.packed(a[:rows]) == expected[:rows]).all(), (depth, columns, rows)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zero points"])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_groups_have_scales_and_zero_points(kind: str, zeros: bool, isa: str) -> None:
    """Groups below a word's length are for int8 only; 264 ends in a chunk, 520 after it; the last may be smaller."""
    rng = np.random.default_rng(2)
    for depth, size in (
        (24, 8),
        (45, 16),
        (600, 264),
        (600, 520),
        (21, 1000),
        *([(10, 3)] * (kind == "int8")),
    ):
        grouped = case(kind, normal(rng, depth, 37), isa, size, zeros)
        a = normal(rng, 9, depth)
        expected = grouped.expected(a)
        for rows in (1, 2, 5, 9):
            assert (grouped.packed(a[:rows]) == expected[:rows]).all(), (depth, size, rows)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
def test_small_integers_are_exact(kind: str, isa: str) -> None:
    """FBGEMM's float16 and float32 tests: elements 0 to 4, any sum of which a float32 holds."""
    rng = np.random.default_rng(3)
    for rows, columns, depth in ((1, 1000, 513), (5, 127, 1024), (120, 257, 300), (256, 64, 128)):
        a, weight = (rng.integers(0, 5, s) for s in ((rows, depth), (depth, columns)))
        given: dict[str, Any] = {"scale": 1.0} if kind in ("int8", "int4") else {}
        held = weight.astype(np.int8 if given else np.float32)
        packed = ops.pack_float_gemm(held, weights=kind, target=isa, **given)
        assert (packed(a.astype(np.float32)) == a @ weight).all()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_near_the_real_numbers(kind: str, isa: str) -> None:
    rng = np.random.default_rng(4)
    weight, bias = normal(rng, 500, 60), normal(rng, 60)
    packed = case(kind, weight, isa, 128 if kind[:3] == "int" else None, bias=bias).packed
    if kind in FLOATS:
        real = {"float16": to_float16, "bfloat16": lambda w: from_bfloat16(to_bfloat16(w))}
        real = real.get(kind, np.asarray)(weight).astype(np.float32)
    else:
        real = dequantize_groups(*quantize_groups(weight, 128, int(kind[3:])), 128)
    for rows in (3, 50):
        a, before = normal(rng, rows, 500), normal(rng, rows, 60)
        out = before.copy()
        packed(a, out, beta=0.75)
        plus = np.float32(0.75) * before.astype(np.float64) + bias
        # Beside the depth: scale and group, bias, beta.
        bound = reference.gemm_f32(a, real, plus.astype(np.float32), roundings=10)
        assert bound.holds(out)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("rows", [1, 4, 50])
def test_bias_and_beta_are_added_last(rows: int, isa: str) -> None:
    """In the order that is documented: bias, then fma(beta, out, sum)."""
    rng = np.random.default_rng(5)
    weight, bias, a = normal(rng, 33, 35), normal(rng, 35), normal(rng, rows, 33)
    plain = case("float16", weight, isa)
    packed = case("float16", weight, isa, bias=bias).packed
    summed = plain.expected(a) + bias
    assert (packed(a) == summed).all()
    before = normal(rng, rows, 35)
    for beta in (1.0, -0.3):
        out = before.copy()
        assert packed(a, out, beta=beta) is out
        assert (out == fma(np.float32(beta), before, summed)).all()
    # Without beta nothing that is there counts, not even a NaN.
    out[...] = np.nan
    assert (packed(a, out) == summed).all()


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("rows", [2, 6, 40])
def test_rounded_activations(rows: int, isa: str) -> None:
    """Chains of rounded elements; where the CPU multiplies pairs of bfloat16, within the bound of any order."""
    rng = np.random.default_rng(6)
    for depth in (1, 64, 301):
        weight, a = normal(rng, depth, 40), normal(rng, rows, depth)
        held = from_bfloat16(to_bfloat16(weight))
        packed = ops.pack_float_gemm(weight, weights="bfloat16", activations="bfloat16", target=isa)
        rounded = from_bfloat16(to_bfloat16(a))
        assert (packed(a) == chain(rounded, held)).all()
        host = ops.pack_float_gemm(weight, weights="bfloat16", activations="bfloat16")
        assert reference.gemm_f32(rounded, held).holds(host(a))
        assert reference.gemm_f32(a, held, operand_roundoff=BFLOAT16_ROUNDOFF).holds(host(a))


@pytest.mark.isa("avx2")
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_wide_vectors(kind: str) -> None:
    """Those of AVX-512, of which LLVM makes two instructions each, so that any CPU runs them."""
    target = replace(targets.LEVELS["avx2"], vector_bits=512, registers=32)
    rng = np.random.default_rng(15)
    # Four vectors, then three: chunks that become float32 are shorter, and yet end with a word.
    for depth, columns, size in ((13, 300, 64), (150, 70, 64), (400, 40, 400)):
        product = case(kind, normal(rng, depth, columns), target, size, True)
        a = normal(rng, 14, depth)
        expected = product.expected(a)
        for rows in (1, 2, 3, 6, 7, 14):
            assert (product.packed(a[:rows]) == expected[:rows]).all(), (depth, rows)


# vdpbf16ps as two fused multiply-adds: the upper halves' first.
PAIRS = """
define internal <{lanes} x float> @{name}(
    <{lanes} x float> %acc, <{lanes} x i32> %a, <{lanes} x i32> %b) alwaysinline {{
  %a1 = and <{lanes} x i32> %a, splat (i32 -65536)
  %b1 = and <{lanes} x i32> %b, splat (i32 -65536)
  %a0 = shl <{lanes} x i32> %a, splat (i32 16)
  %b0 = shl <{lanes} x i32> %b, splat (i32 16)
  %x1 = bitcast <{lanes} x i32> %a1 to <{lanes} x float>
  %y1 = bitcast <{lanes} x i32> %b1 to <{lanes} x float>
  %x0 = bitcast <{lanes} x i32> %a0 to <{lanes} x float>
  %y0 = bitcast <{lanes} x i32> %b0 to <{lanes} x float>
  %high = call <{lanes} x float> @llvm.fma(<{lanes} x float> %x1, <{lanes} x float> %y1, <{lanes} x float> %acc)
  %low = call <{lanes} x float> @llvm.fma(<{lanes} x float> %x0, <{lanes} x float> %y0, <{lanes} x float> %high)
  ret <{lanes} x float> %low
}}
declare <{lanes} x float> @llvm.fma.v{lanes}f32(<{lanes} x float>, <{lanes} x float>, <{lanes} x float>)
""".replace("@llvm.fma(", "@llvm.fma.v{lanes}f32(")


@pytest.mark.isa("avx2")
def test_pairs_are_packed_as_the_instruction_takes_them(monkeypatch) -> None:
    """With another function in the instruction's place, so that any CPU runs all that is around it."""
    monkeypatch.setattr("lowgemm.intrin._bfloat16._CODE", PAIRS)
    avx2 = targets.LEVELS["avx2"]
    target = replace(avx2, features=(*avx2.features, "avx512_bf16"))
    rng = np.random.default_rng(14)
    for depth in (1, 2, 64, 301, 600):
        weight, a = normal(rng, depth, 40), normal(rng, 40, depth)
        packed = ops.pack_float_gemm(
            weight, weights="bfloat16", activations="bfloat16", target=target
        )
        # The odd elements of pairs come first; the one that is missing is 0.
        order = np.arange(depth + depth % 2).reshape(-1, 2)[:, ::-1].reshape(-1)
        held, rounded = (
            np.vstack([from_bfloat16(to_bfloat16(x)), np.zeros_like(x[:1])])[order]
            for x in (weight, a.T)
        )
        expected = chain(rounded.T, held)
        for rows in (1, 5, 40):
            assert (packed(a[:rows]) == expected[:rows]).all(), (depth, rows)


def test_the_host_multiplies_pairs_if_it_can() -> None:
    packed = ops.pack_float_gemm(np.ones((2, 2), np.float32), target="host")
    assert packed.target.has("avx512_bf16") == ("avx512_bf16" in targets.host_features())


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("rows", [1, 5, 30])
def test_matrices_may_be_parts_of_others(rows: int, isa: str) -> None:
    rng = np.random.default_rng(8)
    product = case("int8", normal(rng, 20, 33), isa)
    a, out = normal(rng, 2 * rows, 31)[::2, 4:24], normal(rng, rows, 40)
    before = out.copy()
    expected = product.expected(a)
    product.packed(a, out[:, 3:36])
    assert (out[:, 3:36] == expected).all()
    assert (out[:, :3] == before[:, :3]).all() and (out[:, 36:] == before[:, 36:]).all()
    # More axes, contiguous and not.
    stack = np.stack([a, -a, 2 * a])
    assert (product.packed(stack) == np.stack([expected, -expected, 2 * expected])).all()
    strided = np.zeros((3, rows, 50), np.float32)[..., :33]
    product.packed(stack[:, :, :], strided)
    assert (strided[2] == 2 * expected).all()
    assert (product.packed(np.swapaxes(np.stack([a, a], 1), 0, 1)) == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_or_written_past_an_end(kind: str) -> None:
    rng = np.random.default_rng(9)
    for depth, columns in ((13, 21), (8, 16)):
        product = case(kind, normal(rng, depth, columns), "host")
        for rows in (1, 3, 20):
            a = normal(rng, rows, depth)
            for inside, out in fenced(a, np.zeros((rows, columns), np.float32)):
                assert (product.packed(inside, out) == product.packed(a)).all()


@pytest.mark.parametrize("isa", isas())
def test_threads_share_columns_and_rows(isa: str) -> None:
    """Results do not depend on how many there are, nor on who calls at the same time."""
    rng = np.random.default_rng(10)
    product = case("int4", normal(rng, 256, 640), isa, 64)
    inputs = [normal(rng, rows, 256) for rows in (1, 2, 40, 400)]
    before = ops.get_num_threads()
    try:
        ops.set_num_threads(1)
        expected = [product.packed(a) for a in inputs]
        ops.set_num_threads(3)
        assert all((product.packed(a) == e).all() for a, e in zip(inputs, expected, strict=True))
        wrong = []

        def call(index: int) -> None:
            for _ in range(20):
                if not (product.packed(inputs[index]) == expected[index]).all():
                    wrong.append(index)

        callers = [threading.Thread(target=call, args=(i % 4,)) for i in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not wrong
    finally:
        ops.set_num_threads(before)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("columns", [40, 2000], ids=["low blocks", "high blocks"])
def test_rows_do_not_depend_on_their_block(columns: int, isa: str) -> None:
    """Of large weights, a block has more rows."""
    rng = np.random.default_rng(11)
    product = case("float32", normal(rng, 300, columns), isa)
    a = normal(rng, 215, 300)
    expected = np.concatenate([product.packed(a[at : at + 5]) for at in range(0, len(a), 5)])
    before = ops.get_num_threads()
    try:
        for threads in (1, 3):
            ops.set_num_threads(threads)
            for rows in (7, 13, 50, 97, 215):
                assert (product.packed(a[:rows]) == expected[:rows]).all()
    finally:
        ops.set_num_threads(before)


def test_no_rows_give_none() -> None:
    packed = ops.pack_float_gemm(np.ones((3, 4), np.float32))
    assert packed(np.ones((0, 3), np.float32)).shape == (0, 4)
    assert packed(np.ones((2, 0, 3), np.float32)).shape == (2, 0, 4)
    packed.bind(np.ones((0, 3), np.float32), np.ones((0, 4), np.float32))()


def test_bound_arrays_are_read_anew() -> None:
    rng = np.random.default_rng(11)
    product = case("float16", normal(rng, 30, 20), "host")
    a, out = np.zeros((4, 30), np.float32), np.ones((4, 20), np.float32)
    run = product.packed.bind(a, out)
    run()
    assert not out.any()
    a[...] = normal(rng, 4, 30)
    run()
    assert (out == product.expected(a)).all()
    add = product.packed.bind(a, out, beta=1.0)
    add()
    assert (out == fma(np.float32(1), product.expected(a), product.expected(a))).all()


def test_weights_may_come_in_many_forms() -> None:
    rng = np.random.default_rng(12)
    weight, a = normal(rng, 18, 20), normal(rng, 3, 18)
    codes = rng.integers(0, 16, (18, 20))
    scale = np.float32(0.5)
    half = weight.astype(np.float16)
    brain = weight.astype(ml_dtypes.bfloat16)

    def same(one: ops.PackedFloatGemm, other: ops.PackedFloatGemm) -> None:
        assert one.weights == other.weights
        assert (one(a) == other(a)).all()

    pack = ops.pack_float_gemm
    same(pack(weight, weights="float16"), pack(half))
    same(pack(weight, weights="bfloat16"), pack(brain))
    same(pack(weight.T, transposed=True), pack(weight))
    same(pack(np.asfortranarray(weight)), pack(weight))
    for kind, shift in (("int4", 8), ("int8", 128)):
        unsigned = codes.astype(np.uint8)
        signed = (codes - shift).astype(np.int8)
        by_zero = pack(unsigned, weights=kind, scale=scale, zero_point=shift)
        same(by_zero, pack(signed, weights=kind, scale=scale))
        same(
            by_zero,
            pack(signed, weights=kind, scale=np.full(20, scale), zero_point=np.zeros(20, int)),
        )
        same(
            pack(unsigned, weights=kind, scale=scale),
            pack(signed, weights=kind, scale=scale, zero_point=-shift),
        )
    same(pack(codes.astype(np.int8), scale=scale), pack(codes.astype(np.uint8), scale=scale))


def test_large_float16_weights_are_clipped() -> None:
    """FBGEMM's rule: what float16 cannot hold is its largest number, not infinity."""
    packed = ops.pack_float_gemm(np.array([[1e6, -1e6]], np.float32), weights="float16")
    assert packed(np.ones((1, 1), np.float32)).tolist() == [[65504.0, -65504.0]]


def test_int4_takes_half_a_byte() -> None:
    codes = np.zeros((512, 512), np.int8)
    packed = ops.pack_float_gemm(codes, weights="int4", scale=1.0)
    assert 512 * 512 // 2 <= packed.nbytes <= 512 * 512 // 2 + 8 * 512


def test_memory_of_torch_is_shared() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(13)
    weight, a = normal(rng, 10, 12), normal(rng, 3, 10)
    packed = ops.pack_float_gemm(torch.from_numpy(weight))
    out = torch.zeros(3, 12)
    packed(torch.from_numpy(a), out)
    assert (out.numpy() == chain(a, weight)).all()


CODES = np.zeros((16, 4), np.int8)
FLOAT = np.zeros((16, 4), np.float32)


@pytest.mark.parametrize(
    ("b", "options", "message"),
    [
        (
            np.zeros(3, np.float32),
            {},
            "b: expected two axes of at least one element, got shape (3,)",
        ),
        (FLOAT[:0], {}, "b: expected two axes of at least one element, got shape (0, 4)"),
        (
            FLOAT.astype(np.float64),
            {},
            "weights: expected one of float32, float16, bfloat16, int8, int4, got float64",
        ),
        (
            CODES,
            {"weights": "float16"},
            "b: expected float16 or float32, got int8 of shape (16, 4)",
        ),
        (
            FLOAT,
            {"weights": "int4", "scale": 1.0},
            "b: expected int8 or uint8, got float32 of shape (16, 4)",
        ),
        (FLOAT, {"scale": 1.0}, "scale: only for weights int8 and int4, got float32"),
        (FLOAT, {"group_size": 8}, "group_size: only for weights int8 and int4, got float32"),
        (CODES, {}, "scale: int8 weights need one"),
        (CODES, {"scale": np.nan}, "scale: expected finite scales above zero, got nan"),
        (CODES, {"scale": 0.0}, "scale: expected finite scales above zero, got 0.0"),
        (CODES, {"scale": np.ones(3)}, "scale: expected one, (4,) or (1, 4), got shape (3,)"),
        (
            CODES,
            {"scale": np.ones(4), "group_size": 0},
            "group_size: expected an integer from 1, got 0",
        ),
        (
            CODES,
            {"weights": "int4", "scale": 1.0, "group_size": 12},
            "group_size: expected a multiple of 8, got 12",
        ),
        (
            CODES + 8,
            {"weights": "int4", "scale": 1.0},
            "b: expected int8 from -8 to 7 for int4, got 8 to 8",
        ),
        (CODES, {"scale": 1.0, "zero_point": 128}, "zero_point: expected -128 to 127, got 128"),
        (CODES, {"scale": 1.0, "zero_point": 0.5}, "zero_point: expected integers, got float64"),
        (
            CODES,
            {"scale": 1.0, "zero_point": np.zeros((2, 4), int)},
            "zero_point: expected one, (4,) or (1, 4), got shape (2, 4)",
        ),
        (
            FLOAT,
            {"bias": np.zeros(3, np.float32)},
            "bias: expected float32 of shape (4), got float32 of shape (3,)",
        ),
        (
            FLOAT,
            {"bias": np.zeros(4)},
            "bias: expected float32 of shape (4), got float64 of shape (4,)",
        ),
        (
            FLOAT,
            {"activations": "bfloat16"},
            "activations: bfloat16 needs bfloat16 weights, got float32",
        ),
        (
            FLOAT,
            {"activations": "int8"},
            "activations: expected one of float32, bfloat16, got int8",
        ),
    ],
)
def test_what_cannot_be_packed_is_named(
    b: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ops.OperandError) as caught:
        ops.pack_float_gemm(b, **options)
    assert str(caught.value) == message


A = np.zeros((3, 16), np.float32)


@pytest.mark.parametrize(
    ("a", "out", "beta", "message"),
    [
        (
            A[:, 1:],
            None,
            0,
            "a: expected float32 of shape (..., rows, 16), got float32 of shape (3, 15)",
        ),
        (A[0], None, 0, "a: expected float32 of shape (..., rows, 16), got float32 of shape (16,)"),
        (
            A.astype(np.float64),
            None,
            0,
            "a: expected float32 of shape (..., rows, 16), got float64 of shape (3, 16)",
        ),
        (
            np.asfortranarray(A),
            None,
            0,
            "a: expected adjacent elements in rows, and rows one after the other, got strides (4, 12)",
        ),
        (
            A,
            np.zeros((3, 5), np.float32),
            0,
            "out: expected float32 of shape (3, 4), got float32 of shape (3, 5)",
        ),
        (
            A,
            np.zeros((3, 4)),
            0,
            "out: expected float32 of shape (3, 4), got float64 of shape (3, 4)",
        ),
        (A, A[:, :4], 0, "out: expected memory apart from the inputs"),
        (A, np.broadcast_to(np.float32(0), (3, 4)), 0, "out: expected adjacent elements in rows"),
        (A, None, 1.0, "out: expected the array to add to"),
    ],
)
def test_what_cannot_be_multiplied_is_named(a, out, beta: float, message: str) -> None:
    packed = ops.pack_float_gemm(FLOAT)
    with pytest.raises(ops.OperandError) as caught:
        packed(a, out, beta=beta)
    assert str(caught.value).startswith(message)


def test_an_output_that_cannot_be_written_is_refused() -> None:
    out = np.zeros((3, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises(ops.OperandError, match=r"^out: expected an array that can be written to$"):
        ops.pack_float_gemm(FLOAT)(A, out)
