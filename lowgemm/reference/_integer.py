"""Integer convolution and matrix product: the exact sums, modulo 2**32.

Products of 8-bit numbers are summed in float64, which holds integers below 2**53 exactly: over
10**11 products fit.
"""

import numpy as np

from lowgemm.reference._windows import correlate


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


def conv2d_i32(
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: int = 0,
    w_zero_point: int | np.ndarray = 0,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    group: int = 1,
    layout: str = "NHWC",
) -> np.ndarray:
    """The convolution of integers mod 2**32, padded with the zero point of `x` (the real 0).

    acc[n, y, x, o] = sum_{i, r, c} (x[n, y*sh + r*dh - top, x*sw + c*dw - left, i] - x_zero_point)
                                    * (w[o, i, r, c] - w_zero_point[o])

    Args:
        x: uint8 or int8, `(n, h, w, c)`, or `(n, c, h, w)` with layout "NCHW".
        w: uint8 or int8, `(out, in / group, kernel_h, kernel_w)` in either layout.
        x_zero_point: a scalar.
        w_zero_point: a scalar or `(out,)`.
        strides, dilations: (vertical, horizontal).
        pads: top, left, bottom, right.
        group: number of groups of channels.
        layout: "NHWC" or "NCHW", of `x` and of the result.

    Returns:
        int32, in `layout`.
    """
    data = x.transpose(0, 3, 1, 2) if layout == "NHWC" else x
    zero = np.asarray(w_zero_point, np.float64).reshape(-1, 1, 1, 1)
    attrs = {
        "kernel_shape": list(w.shape[2:]),
        "strides": list(strides),
        "pads": list(pads),
        "dilations": list(dilations),
        "group": group,
    }
    acc = correlate(data.astype(np.float64) - x_zero_point, w.astype(np.float64) - zero, attrs, 0)
    acc = acc.transpose(0, 2, 3, 1) if layout == "NHWC" else acc
    return np.ascontiguousarray(wrap_i32(acc))


def wrap_i32(exact: np.ndarray) -> np.ndarray:
    """Exact integers (held in float64) as int32, modulo 2**32."""
    assert np.abs(exact).max(initial=0) < 2**53, "the sum does not fit float64"
    return exact.astype(np.int64).astype(np.int32)
