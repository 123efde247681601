"""Hard-swishes of codes: the arithmetic, and how often it gives the table."""

import numpy as np
import pytest

from lowgemm.quant import (
    dequantize_linear,
    hard_swish_codes,
    hard_swish_factors,
    quantize_linear,
)


def test_zero_points_and_the_term_are_in_the_factors() -> None:
    # 2 * hard_swish(x) + 1 at x = -4, -3, 0, 1.5, 3 and 4 is 1, 1, 1, 3.25, 7 and 9.
    factors = hard_swish_factors((0.5, 77), (0.25, 10), 2.0, 1.0)
    got = hard_swish_codes(np.array([-8, -6, 0, 3, 6, 8]), factors, "uint8")
    assert got.tolist() == [14, 14, 14, 23, 38, 46]


def test_codes_are_clamped() -> None:
    factors = hard_swish_factors((1.0, 0), (0.5, -100), 1.0, 0.0)
    assert hard_swish_codes(np.array([-9, 9, 200]), factors, "int8").tolist() == [-100, -82, 127]
    assert hard_swish_codes(np.array([-9, 9, 200]), factors, "uint8").tolist() == [0, 0, 255]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_codes_are_those_of_the_float_operator(dtype: str) -> None:
    """Two roundings less than in float32 move a tie now and then: 3 codes of 1.5 million did."""
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    codes = np.arange(limits.min, limits.max + 1).astype(dtype)
    different = 0
    for _ in range(1000):
        step, out = rng.uniform(0.005, 0.2, 2).astype(np.float32)
        points = [int(rng.integers(limits.min, limits.max + 1)) for _ in range(2)]
        x = dequantize_linear(codes, step, points[0]).astype(np.float32)
        gate = np.clip(x * np.float32(1 / 6) + np.float32(0.5), 0, 1)
        want = quantize_linear((x * gate).astype(np.float32), out, points[1], np.dtype(dtype))
        factors = hard_swish_factors((float(step), points[0]), (float(out), points[1]), 1.0, 0.0)
        got = hard_swish_codes(codes.astype(np.int64) - points[0], factors, dtype)
        different += np.count_nonzero(got != want)
        assert np.abs(got.astype(np.int64) - want).max() <= 1
    assert different <= 5
