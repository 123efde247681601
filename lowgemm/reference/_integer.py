"""Integer matrix product: the exact sums, modulo 2**32.

Products of 8-bit numbers are summed in float64, which holds integers below 2**53 exactly: over
10**11 products fit.
"""

import numpy as np


def gemm_i32(
    lhs: np.ndarray,
    rhs: np.ndarray,
    lhs_zero_point: int | np.ndarray = 0,
    rhs_zero_point: int | np.ndarray = 0,
) -> np.ndarray:
    """acc[m, n] = sum_k (lhs[m, k] - lhs_zero_point) * (rhs[k, n] - rhs_zero_point[n]), mod 2**32.

    Args:
        lhs: uint8 or int8 `(..., rows, depth)`.
        rhs: uint8 or int8 `(..., depth, columns)`.
        lhs_zero_point: a scalar.
        rhs_zero_point: a scalar or `(columns,)`.

    Returns:
        int32 `(..., rows, columns)`.
    """
    a = lhs.astype(np.float64) - np.asarray(lhs_zero_point, np.float64)
    b = rhs.astype(np.float64) - np.asarray(rhs_zero_point, np.float64)
    return wrap_i32(np.matmul(a, b))


def wrap_i32(exact: np.ndarray) -> np.ndarray:
    """Exact integers (held in float64) as int32, modulo 2**32."""
    assert np.abs(exact).max(initial=0) < 2**53, "the sum does not fit float64"
    return exact.astype(np.int64).astype(np.int32)
