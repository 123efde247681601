"""Integer products equal a sum written out in Python's integers, over full-range data."""

import itertools

import numpy as np
import pytest

from lowgemm.reference import gemm_i32


def full_range(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize("lhs_type", ["uint8", "int8"])
@pytest.mark.parametrize("rhs_type", ["uint8", "int8"])
def test_gemm_equals_sums_of_products(lhs_type: str, rhs_type: str):
    rng = np.random.default_rng(0)
    lhs, rhs = full_range(rng, (3, 17), lhs_type), full_range(rng, (17, 4), rhs_type)
    points = np.array([0, 3, -128, 127])
    acc = gemm_i32(lhs, rhs, 43, points)
    assert acc.dtype == np.int32
    for m, n in itertools.product(range(3), range(4)):
        exact = sum((int(lhs[m, k]) - 43) * (int(rhs[k, n]) - int(points[n])) for k in range(17))
        assert acc[m, n] == exact


def test_gemm_wraps_at_32_bits():
    depth = 70_000
    lhs, rhs = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    assert gemm_i32(lhs, rhs)[0, 0] == wrap(-255 * 128 * depth)
