"""Quantizing and dequantizing at ties, ends of the range and with parameters along an axis."""

import numpy as np
import pytest

from lowgemm.quant import dequantize_linear, quantize_linear


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
