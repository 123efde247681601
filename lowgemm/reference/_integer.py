"""Integer matrix products: the exact sums, modulo 2**32 or 2**64, and the sums of rows and columns beside them.

Products of 8-bit numbers are summed in float64, which holds integers below 2**53 exactly: over
10**11 products fit.

Groups are FBGEMM's: side by side along the depth of the left operand, below each other in the right one.
"""

import numpy as np
from numpy.typing import ArrayLike

from lowgemm.errors import InputError


def gemm_i32(
    lhs: np.ndarray,
    rhs: np.ndarray,
    lhs_zero_point: int | np.ndarray = 0,
    rhs_zero_point: int | np.ndarray = 0,
    *,
    groups: int = 1,
    lhs_transposed: bool = False,
    rhs_transposed: bool = False,
) -> np.ndarray:
    """acc[m, n] = sum_k (lhs[m, k] - lhs_zero_point[m]) * (rhs[k, n] - rhs_zero_point[n]), mod 2**32.

    FBGEMM's `matmul_u8i8acc32_ref`, with the zero points of both sides taken off.

    Args:
        lhs: uint8 or int8 `(..., rows, groups * depth)`; transposed `(..., groups * depth, rows)`.
        rhs: uint8 or int8 `(..., groups * depth, columns)`; transposed `(..., groups * columns, depth)`.
        lhs_zero_point: a scalar or `(..., rows)`.
        rhs_zero_point: a scalar, `(groups,)` or `(groups * columns,)`.
        groups: number of groups: group g multiplies its own depth of both sides.
        lhs_transposed, rhs_transposed: the operand's last two axes are swapped, the right one's within its group.

    Returns:
        int32 `(..., rows, groups * columns)`; leading axes broadcast.
    """
    a, b = stacked(lhs, rhs, groups, lhs_transposed, rhs_transposed)
    points = np.asarray(lhs_zero_point, np.float64)
    a = a.astype(np.float64) - (points[..., None, :, None] if points.ndim else points)
    b = b - _points(rhs_zero_point, groups, b.shape[-1])
    return wrap_i32(side_by_side(np.matmul(a, b)))


def gemm_i64(
    lhs: np.ndarray,
    rhs: np.ndarray,
    plus: np.ndarray | None = None,
    *,
    lhs_transposed: bool = False,
    rhs_transposed: bool = False,
) -> np.ndarray:
    """acc[m, n] = plus[m, n] + sum_k lhs[m, k] * rhs[k, n], mod 2**64: FBGEMM's `cblas_gemm_i64_i64acc_ref`.

    Args:
        lhs: int64 `(..., rows, depth)`; transposed `(..., depth, rows)`.
        rhs: int64 `(..., depth, columns)`; transposed `(..., columns, depth)`.
        plus: int64, what is added to the products; None for nothing.

    Returns:
        int64 `(..., rows, columns)`.
    """
    a, b = stacked(lhs, rhs, 1, lhs_transposed, rhs_transposed)
    # Unsigned integers wrap by definition, and their bits are those of signed ones.
    acc = side_by_side(np.matmul(a.astype(np.uint64), b.astype(np.uint64)))
    return (acc if plus is None else acc + plus.astype(np.uint64)).astype(np.int64)


def row_sums(lhs: np.ndarray, groups: int = 1, *, transposed: bool = False) -> np.ndarray:
    """sum_k lhs[m, k] of every group: FBGEMM's `row_offsets_u8acc32_ref`.

    Args:
        lhs: uint8 or int8 `(..., rows, groups * depth)`; transposed `(..., groups * depth, rows)`.

    Returns:
        int32 `(..., rows, groups)`.
    """
    a = lhs.swapaxes(-1, -2) if transposed else lhs
    return a.reshape(*a.shape[:-1], groups, -1).sum(axis=-1, dtype=np.int64).astype(np.int32)


def column_offsets(
    rhs: np.ndarray,
    rhs_zero_point: int | np.ndarray = 0,
    groups: int = 1,
    *,
    transposed: bool = False,
) -> np.ndarray:
    """sum_k rhs[k, n] - rhs_zero_point[n] * depth: FBGEMM's `col_offsets_with_zero_pt_s8acc32_ref`.

    With a zero point of 0 it is the sum of the column.

    Args:
        rhs: uint8 or int8 `(groups * depth, columns)`; transposed `(groups * columns, depth)`.
        rhs_zero_point: a scalar, `(groups,)` or `(groups * columns,)`.

    Returns:
        int32 `(groups * columns,)`, mod 2**32.
    """
    b = by_group(rhs, groups, transposed)
    points = _points(rhs_zero_point, groups, b.shape[-1])
    return wrap_i32((b.astype(np.float64) - points).sum(axis=-2)).reshape(-1)


def _points(rhs_zero_point: ArrayLike, groups: int, columns: int) -> np.ndarray:
    """The right operand's zero points as float64 `(groups, 1, columns)`, `columns` those of a group."""
    points = each_column("rhs_zero_point", rhs_zero_point, groups, groups * columns)
    return points.reshape(groups, 1, columns)


def stacked(
    lhs: np.ndarray, rhs: np.ndarray, groups: int, lhs_transposed: bool, rhs_transposed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Both operands with an axis of groups before the last two: `(..., groups, rows, depth)` and
    `(..., groups, depth, columns)`.

    Raises:
        InputError: the depths differ, or groups do not divide them.
    """
    a = lhs.swapaxes(-1, -2) if lhs_transposed else lhs
    b = by_group(rhs, groups, rhs_transposed)
    if a.shape[-1] != groups * b.shape[-2]:
        raise InputError(f"lhs has depth {a.shape[-1]}, rhs {groups} groups of {b.shape[-2]}")
    return a.reshape(*a.shape[:-1], groups, -1).swapaxes(-2, -3), b


def by_group(rhs: np.ndarray, groups: int, transposed: bool) -> np.ndarray:
    """The right operand as `(..., groups, depth, columns)`."""
    if rhs.shape[-2] % groups:
        raise InputError(f"rhs has {rhs.shape[-2]} rows, which {groups} groups do not divide")
    b = rhs.reshape(*rhs.shape[:-2], groups, rhs.shape[-2] // groups, rhs.shape[-1])
    return b.swapaxes(-1, -2) if transposed else b


def each_column(
    name: str, value: ArrayLike, groups: int, columns: int, kind: type = np.float64
) -> np.ndarray:
    """A value for the tensor, every group or every column, as `(columns,)` of type `kind`.

    Raises:
        InputError: it is none of these.
    """
    values = np.asarray(value, kind).reshape(-1)
    if values.size not in (1, groups, columns):
        expected = f"1, {groups} or {columns}"
        raise InputError(f"{name} has {values.size} elements, expected {expected}")
    return np.repeat(values, columns // values.size)


def side_by_side(acc: np.ndarray) -> np.ndarray:
    """`(..., groups, rows, columns)` as `(..., rows, groups * columns)`."""
    acc = acc.swapaxes(-2, -3)
    return acc.reshape(*acc.shape[:-2], -1)


def wrap_i32(exact: np.ndarray) -> np.ndarray:
    """Exact integers (held in float64) as int32, modulo 2**32."""
    assert np.abs(exact).max(initial=0) < 2**53, "the sum does not fit float64"
    return exact.astype(np.int64).astype(np.int32)
