"""Quantizing and dequantizing at ties, ends of the range and with parameters along an axis."""

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import (
    dequantize_linear,
    quantize_dequantize,
    quantize_linear,
    quantize_reciprocal,
)

F = np.float32


def test_ties_go_to_even_before_the_zero_point_is_added():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    # Rounding after adding 1 would give 2, 2, 4, 0, 0.
    assert quantize_linear(x, 1.0, 1, "int8").tolist() == [1, 3, 3, 1, -1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
def test_out_of_range_is_clamped(dtype: str):
    limits = np.iinfo(dtype)
    x = np.array([-3.4e38, 3.4e38, -np.inf, np.inf], np.float32)
    expected = [limits.min, limits.max] * 2
    assert quantize_linear(x, 0.5, 3, dtype).tolist() == expected


def test_parameters_along_an_axis():
    x = np.ones((2, 3), np.float32)
    scale = np.array([1, 0.5, 0.25], np.float32)
    q = quantize_linear(x, scale, np.array([0, 1, 2]), "uint8", axis=1)
    assert q.tolist() == [[1, 3, 6]] * 2
    assert dequantize_linear(q, scale, np.array([0, 1, 2]), axis=1).tolist() == x.tolist()


def test_dequantize_subtracts_before_it_rounds():
    q = np.array([2**31 - 1, -(2**31)], np.int32)
    assert dequantize_linear(q, 1.0, 0).tolist() == [2.0**31, -(2.0**31)]
    assert dequantize_linear(np.array([0, 255], np.uint8), 0.5, 128).tolist() == [-64.0, 63.5]


def test_fbgemm_multiplies_by_the_reciprocal():
    x, scale = np.array([0.273939937], np.float32), np.float32(0.00214854861)
    assert quantize_reciprocal(x, scale).tolist() == [128]  # 127.5, to even
    assert quantize_linear(x, scale).tolist() == [127]  # 127.499992


def test_fbgemm_adds_the_zero_point_after_rounding():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert quantize_reciprocal(x, 1.0, 1, "int8").tolist() == [1, 3, 3, 1, -1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
def test_fbgemm_corner_cases(dtype: str):
    limits = np.iinfo(dtype)
    x = np.array([3.40282e38, -2.16845e38, np.inf, -np.inf, np.nan], np.float32)
    codes = quantize_reciprocal(x, np.float32(1.19209e-07), 0, dtype)
    assert codes.dtype == dtype
    assert codes.tolist() == [limits.max, limits.min, limits.max, limits.min, limits.min]


def test_fbgemm_fused_corner_cases():
    x, scale = np.array([3.40282e38, -2.16845e38], np.float32), np.float32(1.19209e-07)
    signed, unsigned = (quantize_dequantize(x, scale, 0, dtype) for dtype in ("int8", "uint8"))
    assert signed.tolist() == [F(127) * scale, F(-128) * scale]
    assert unsigned.tolist() == [F(255) * scale, 0]
    # FBGEMM's test prints its expectations with eight digits.
    assert signed.tolist() == pytest.approx([1.5139543e-05, -1.5258752e-05], rel=1e-7)
    assert unsigned.tolist() == pytest.approx([3.0398295e-05, 0], rel=1e-7)


def test_int32_codes_get_the_zero_point_in_float32():
    x = np.array([2.0**24, 3.0], np.float32)
    assert quantize_reciprocal(x, 1.0, 1, "int32").tolist() == [2**24, 4]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("axis", [1, -1])
def test_groups_of_channels_have_parameters_of_their_own(dtype: str, groups: int, axis: int):
    """QuantizeGroupwise in both layouts, element by element."""
    rng = np.random.default_rng(groups)
    x = rng.uniform(-100, 100, (4, 6, 5) if axis == 1 else (4, 5, 6)).astype(np.float32)
    scale, points = rng.uniform(0.1, 1.1, groups).astype(np.float32), rng.integers(0, 8, groups)
    codes = quantize_reciprocal(x, scale, points, dtype, axis)
    fused = quantize_dequantize(x, scale, points, dtype, axis)
    limits = np.iinfo(dtype)
    for at in np.ndindex(x.shape):
        g = at[axis] * groups // 6
        code = np.rint(x[at] * (np.float32(1) / scale[g])) + points[g]
        assert codes[at] == np.clip(code, limits.min, limits.max)
        assert fused[at] == np.float32(int(codes[at]) - points[g]) * scale[g]


@pytest.mark.parametrize("scale", [0.0, float("nan"), 1e-40])
def test_a_scale_without_reciprocal_is_refused(scale: float):
    with pytest.raises(InputError, match="scale: expected float32 numbers with a finite recip"):
        quantize_reciprocal(np.zeros(3, np.float32), scale)
