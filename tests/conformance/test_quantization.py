"""FBGEMM's tests of quantization, transposition and conversion, through the operators, against the oracle with ==.

QuantUtilsTest (per tensor and group-wise codes, its fixed vectors and corner cases, ranges, rows of 8, 4 and 2 bits),
TransposedRequantizeTest, TransposeTest, Bfloat16ConvertTest and Float16ConvertTest. Where FBGEMM allows a code to be
off by one, here none is. Besides: ties, zero points at both ends, arrays without elements, one thread and two.
"""

from itertools import product as combinations
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lowgemm import ops, quant, reference

from gemm_check import same
from isa import isas
from kernels import full_range

F = np.float32
# Around a vector of each length, and enough for two threads.
SIZES = (0, 1, 7, 16, 33, 100, 60_000)
POINTS = {"uint8": (0, 128, 255), "int8": (-128, 0, 127)}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", POINTS)
def test_codes(isa: str, dtype: Any, conformance) -> None:
    """Quantize, dequantize, and both: random numbers, every tie, and all zero points."""
    rng = np.random.default_rng(10)
    scale = 0.25
    for size, point in combinations(SIZES, POINTS[dtype]):
        x = rng.uniform(-80, 80, size).astype(F)
        x[: size // 2] = (np.round(x[: size // 2] / scale) + F(0.5)) * scale  # ties
        wanted = quant.quantize_reciprocal(x, scale, point, dtype)
        same(ops.quantize(x, scale, point, dtype, target=isa), wanted)
        back = quant.dequantize_linear(wanted, scale, point)
        same(ops.dequantize(wanted, scale, point, target=isa), back)
        same(ops.quantize_dequantize(x, scale, point, dtype, target=isa), back)
    conformance("quantize", isa, 3 * len(SIZES) * len(POINTS[dtype]))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", POINTS)
def test_groups_of_channels(isa: str, dtype: Any, conformance) -> None:
    """QuantizeGroupwise: channels first (KCX) and last (KXC), in one group, some, and as many as channels."""
    rng = np.random.default_rng(11)
    for groups, axis in combinations((1, 4, 12), (0, 1)):
        x = rng.normal(0, 20, (12, 40) if axis == 0 else (40, 12)).astype(F)
        scale = rng.uniform(0.05, 0.6, groups).astype(F)
        points = rng.integers(POINTS[dtype][0], POINTS[dtype][2], groups, endpoint=True)
        shape = (12, 1) if axis == 0 else (1, 12)
        wanted = quant.quantize_reciprocal(
            x,
            np.repeat(scale, 12 // groups).reshape(shape),
            np.repeat(points, 12 // groups).reshape(shape),
            dtype,
        )
        same(ops.quantize(x, scale, points, dtype, axis, target=isa), wanted)
        conformance("quantize in groups", isa)


@pytest.mark.parametrize("isa", isas())
def test_corner_cases(isa: str, conformance) -> None:
    """FBGEMM's: numbers far outside of what a code can be, and a range with a known scale."""
    x, scale = np.array([3.40282e38, -2.16845e38], F), F(1.19209e-07)
    assert ops.quantize(x, scale, dtype="int8", target=isa).tolist() == [127, -128]
    assert ops.quantize(x, scale, dtype="uint8", target=isa).tolist() == [255, 0]
    signed = ops.quantize_dequantize(x, scale, dtype="int8", target=isa)
    assert signed.tolist() == [F(127) * scale, F(-128) * scale]
    unsigned = ops.quantize_dequantize(x, scale, dtype="uint8", target=isa)
    assert unsigned.tolist() == [F(255) * scale, 0]
    x = np.array([0.1, -1.6165, 0.5685, 0], F)
    found = ops.choose_qparams(x, "int8", symmetric=True, target=isa)
    assert (F(found.scale), found.zero_point) == (F(0.012628906), 0)
    conformance("quantize corner cases", isa, 7)


# bits, type of scale and bias -> the rows of FBGEMM's test: ones, and a range of 255 from -64 on
FIXED = np.array([[1, 1, 1, 1], [-64, -2.75, 61.625, 191]], F)
FIXED_ROWS: dict[tuple[Any, Any], list[list[int]]] = {
    (8, "float16"): [[0, 0, 0, 0, 0x00, 0x3C, 0x00, 0x3C], [0, 61, 126, 255, 0x00, 0x3C, 0, 0xD4]],
    (4, "float16"): [[0, 0, 0x00, 0x3C, 0x00, 0x3C], [0x40, 0xF7, 0x40, 0x4C, 0x00, 0xD4]],
    (2, "float16"): [[0, 0x00, 0x3C, 0x00, 0x3C], [0b11010100, 0x50, 0x55, 0x00, 0xD4]],
}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_of_few_bits(isa: str, dtype: str, conformance) -> None:
    """The fixed vectors, and rows of every width, near and far from zero, constant and nearly so; and back."""
    rng = np.random.default_rng(12)
    x = FIXED.astype(dtype)
    for (bits, params), wanted in FIXED_ROWS.items():
        assert ops.quantize_rows(x, bits, params, target=isa).tolist() == wanted
        conformance("quantize_rows", isa)
    kinds: list[tuple[Any, Any]] = [*FIXED_ROWS, (8, "float32")]
    for bits, params in kinds:
        for columns, middle, width in combinations((8, 36, 100), (0, 1000), (10, 1e-3, 0)):
            x = (middle + rng.uniform(-width, width, (5, columns))).astype(dtype)
            wanted = quant.quantize_rows(x, bits, params)
            found = ops.quantize_rows(x, bits, params, target=isa)
            assert_array_equal(found, wanted)
            back = ops.dequantize_rows(found, bits, params, target=isa)
            same(back, quant.dequantize_rows(wanted, bits, params))
            conformance("quantize_rows", isa)


@pytest.mark.parametrize("isa", isas())
def test_transposed_requantization(isa: str, conformance) -> None:
    """The stage of sparse products: sums come from `plus`, beside a weight of one block, which is all but nothing.

    A weight's zero point works on sums of activations, its sums on their zero point; float bias, ReLU, both ends of the
    codes as the output's zero point, and sums that make ties.
    """
    rng = np.random.default_rng(9)
    weight = np.zeros((11, 4), np.int8)
    weight[:, 0] = rng.integers(-128, 128, 11)
    choices = combinations((1, 11), (0, 1), (False, True), (False, True), (0, 5, 255))
    for number, (count, zero, biased, relu, point) in enumerate(choices):
        columns = (1, 5, 16, 40)[number % 4]
        x = full_range(rng, (4, columns), "uint8")
        plus = rng.integers(-30_000, 30_000, (11, columns)).astype(np.int32)
        acc = plus + weight.astype(np.int32) @ x
        zeros = rng.integers(-50, -10, count) * zero
        scale = (
            np.full(count, 0.5, F) if number % 3 == 0 else rng.uniform(0.4, 0.6, count).astype(F)
        )
        bias = rng.normal(0, 50, 11).astype(F) if biased else None
        out_scale = 128.0
        output = ops.SparseOutput(scale, out_scale, point, 43, zeros, bias, relu=relu)
        offsets = weight.sum(1, dtype=np.int64) - np.broadcast_to(zeros, 11) * 4
        wanted = reference.requantize_transposed(
            acc,
            scale if count > 1 else scale[0],
            out_scale,
            point,
            x_zero_point=43,
            weight_zero_point=zeros if count > 1 else int(zeros[0]),
            weight_offsets=offsets.astype(np.int32),
            x_sums=x.sum(0, dtype=np.int32),
            bias=bias,
            relu=relu,
        )
        packed = ops.pack_sparse_gemm(weight, output=output, target=isa)
        assert_array_equal(packed(x, plus=plus), wanted)
        conformance("requantize transposed", isa)


@pytest.mark.parametrize("isa", isas())
def test_transposition(isa: str, conformance) -> None:
    """float32, uint8 and uint16 of every number of rows and columns around a tile, and larger ones."""
    rng = np.random.default_rng(15)
    sizes = [*combinations((1, 2, 7, 8, 9, 16, 17, 31, 33), repeat=2), (129, 200), (0, 3), (3, 0)]
    for kind in ("float32", "uint8", "uint16"):
        for rows, columns in sizes:
            x = rng.integers(0, 256, (rows, columns)).astype(kind)
            same(ops.transpose(x, target=isa), np.ascontiguousarray(x.T))
        conformance("transpose", isa, len(sizes))


@pytest.mark.parametrize("isa", isas())
def test_conversion(isa: str, conformance) -> None:
    """To bfloat16 as FBGEMM rounds, and to float16, of random numbers; and within FBGEMM's bounds on the way back."""
    rng = np.random.default_rng(150)
    for size in SIZES:
        x = rng.normal(0, 100, size).astype(F)
        bits = ops.convert(x, "bfloat16", rounding="half_up", target=isa)
        same(bits, quant.to_bfloat16(x, "half_up"))
        back = ops.convert(bits, "float32", target=isa)
        assert (np.abs(back - x) <= np.abs(x) / 128).all()
        half = ops.convert(x, "float16", target=isa)
        same(half, x.astype(np.float16))
        back = ops.convert(half, "float32", target=isa)
        same(back, half.astype(F))
        assert (np.abs(back - x) <= np.abs(x) / 1024 + F(2) ** -25).all()
    conformance("convert", isa, 4 * len(SIZES))


@pytest.mark.parametrize("isa", isas())
def test_one_thread_and_two(isa: str, conformance) -> None:
    x = np.random.default_rng(2).normal(0, 9, (300, 2000)).astype(F)
    found = []
    threads = ops.get_num_threads()
    try:
        for count in (1, 2):
            ops.set_num_threads(count)
            codes = ops.quantize(x, 0.1, 128, target=isa)
            found.append((codes, ops.quantize_rows(x, 4, "float16", target=isa)))
    finally:
        ops.set_num_threads(threads)
    assert all((one == two).all() for one, two in zip(*found, strict=True))
    conformance("quantize", isa, 2)
