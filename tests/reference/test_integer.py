"""Integer products equal a sum written out in Python's integers, over full-range data."""

import itertools

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.reference import column_offsets, gemm_i32, gemm_i64, row_sums


def full_range(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def wrap(value: int, bits: int = 32) -> int:
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


@pytest.mark.parametrize("lhs_type", ["uint8", "int8"])
@pytest.mark.parametrize("rhs_type", ["uint8", "int8"])
def test_gemm_equals_sums_of_products(lhs_type: str, rhs_type: str):
    rng = np.random.default_rng(0)
    lhs, rhs = full_range(rng, (3, 17), lhs_type), full_range(rng, (17, 4), rhs_type)
    rows, points = np.array([43, 0, 255]), np.array([0, 3, -128, 127])
    acc = gemm_i32(lhs, rhs, rows, points)
    assert acc.dtype == np.int32
    for m, n in itertools.product(range(3), range(4)):
        exact = sum(
            (int(lhs[m, k]) - int(rows[m])) * (int(rhs[k, n]) - int(points[n])) for k in range(17)
        )
        assert acc[m, n] == exact


def test_groups_multiply_their_own_depth():
    rng = np.random.default_rng(1)
    lhs, rhs = full_range(rng, (2, 3, 12), "uint8"), full_range(rng, (12, 4), "int8")
    points = rng.integers(-128, 128, 12)
    parts = [
        gemm_i32(lhs[..., 4 * g : 4 * g + 4], rhs[4 * g : 4 * g + 4], 7, points[4 * g : 4 * g + 4])
        for g in range(3)
    ]
    whole = gemm_i32(lhs, rhs, 7, points, groups=3)
    assert (whole == np.concatenate(parts, axis=-1)).all()
    by_group = gemm_i32(lhs, rhs, 7, points[:3], groups=3)
    assert (by_group == gemm_i32(lhs, rhs, 7, np.repeat(points[:3], 4), groups=3)).all()


def test_transposed_operands_give_the_same():
    rng = np.random.default_rng(2)
    lhs, rhs = full_range(rng, (2, 3, 10), "int8"), full_range(rng, (2, 10, 4), "int8")
    rows = rng.integers(-128, 128, (2, 3))
    plain = gemm_i32(lhs, rhs, rows, 5, groups=2)
    each = rhs.reshape(2, 2, 5, 4).swapaxes(-1, -2).reshape(2, 8, 5)
    options = {"lhs_transposed": True, "rhs_transposed": True}
    assert (plain == gemm_i32(lhs.swapaxes(1, 2), each, rows, 5, groups=2, **options)).all()


def test_gemm_wraps_at_32_bits():
    depth = 70_000
    lhs, rhs = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    assert gemm_i32(lhs, rhs)[0, 0] == wrap(-255 * 128 * depth)


def test_a_product_without_depth_is_zero():
    assert gemm_i32(np.zeros((2, 0), np.uint8), np.zeros((0, 3), np.int8)).tolist() == [[0] * 3] * 2


def test_sums_of_rows_and_columns_are_the_zero_points_part():
    rng = np.random.default_rng(3)
    lhs, rhs = full_range(rng, (3, 12), "uint8"), full_range(rng, (12, 4), "int8")
    points = rng.integers(-128, 128, 8)
    rows, columns = row_sums(lhs, 2), column_offsets(rhs, points, 2)
    assert rows.tolist() == [[sum(map(int, r[:6])), sum(map(int, r[6:]))] for r in lhs]
    assert columns.dtype == rows.dtype == np.int32
    for n in range(8):
        column = rhs[6 * (n // 4) : 6 * (n // 4) + 6, n % 4]
        assert columns[n] == sum(map(int, column)) - 6 * points[n]
    # FBGEMM's correction of the plain product gives that of the shifted operands.
    corrected = gemm_i32(lhs, rhs, groups=2) - 43 * columns - rows.repeat(4, axis=1) * points
    assert (corrected == gemm_i32(lhs, rhs, 43, points, groups=2)).all()
    each = rhs.reshape(2, 6, 4).swapaxes(1, 2).reshape(8, 6)
    assert (columns == column_offsets(each, points, 2, transposed=True)).all()
    assert (rows == row_sums(lhs.T, 2, transposed=True)).all()


def test_64_bit_products_wrap():
    rng = np.random.default_rng(4)
    lhs, rhs = full_range(rng, (3, 7), "int64"), full_range(rng, (7, 4), "int64")
    plus = full_range(rng, (3, 4), "int64")
    acc, sum_ = (
        gemm_i64(lhs, rhs),
        gemm_i64(lhs.T, rhs.T, plus, lhs_transposed=True, rhs_transposed=True),
    )
    for m, n in itertools.product(range(3), range(4)):
        exact = sum(int(lhs[m, k]) * int(rhs[k, n]) for k in range(7))
        assert acc[m, n] == wrap(exact, 64)
        assert sum_[m, n] == wrap(exact + int(plus[m, n]), 64)


@pytest.mark.parametrize(
    ("lhs", "rhs", "options", "message"),
    [
        ((2, 4), (5, 3), {}, "lhs has depth 4, rhs 1 groups of 5"),
        ((2, 4), (4, 3), {"groups": 3}, "rhs has 4 rows, which 3 groups do not divide"),
        ((2, 4), (4, 3), {"rhs_zero_point": np.zeros(2)}, "rhs_zero_point has 2 elements, expected 1, 1 or 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(lhs, rhs, options, message: str):
    with pytest.raises(InputError, match=message):
        gemm_i32(np.zeros(lhs, np.uint8), np.zeros(rhs, np.int8), **options)
