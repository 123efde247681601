"""Sums of byte products in saturating 16-bit arithmetic, as `vpmaddubsw` and `vpaddsw` compute them.

What they give depends on the order of the depth, which is that of the operands: pairs are (0, 1), (2, 3), ...
"""

from collections.abc import Sequence

import numpy as np

from lowgemm.errors import InputError
from lowgemm.reference._conv import im2col
from lowgemm.reference._integer import each_column, side_by_side, stacked, wrap_i32
from lowgemm.reference._sparse import SparseColumns, spmdm_i32

# After so much depth FBGEMM's kernels move a 16-bit sum to 32 bits (KCB of its acc16 blocking, `brow` of its oracle).
FLUSH_DEPTH = 256


def gemm_acc16(
    lhs: np.ndarray,
    rhs: np.ndarray,
    *,
    groups: int = 1,
    lhs_transposed: bool = False,
    rhs_transposed: bool = False,
) -> np.ndarray:
    """The product in 16-bit accumulators: FBGEMM's `matmul_u8i8acc16_ref` with `brow` 256.

    Within every 256 of the depth, s = clip16(s + clip16(a0 * b0 + a1 * b1)) pair by pair; then s is added to the 32-bit
    sum, mod 2**32. An odd last element has the partner 0. The depth of every group is counted from 0.

    Args:
        lhs, rhs, groups, lhs_transposed, rhs_transposed: as of `gemm_i32`; uint8 and int8.

    Returns:
        int32 `(..., rows, groups * columns)`, without any zero point taken off.
    """
    return _sum_of_pairs(lhs, rhs, groups, lhs_transposed, rhs_transposed, FLUSH_DEPTH)


def conv_acc16(
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: int = 0,
    w_zero_point: int | np.ndarray = 0,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    *,
    transposed: bool = False,
    output_padding: Sequence[int] | None = None,
    outliers: bool = False,
) -> np.ndarray:
    """The convolution as `im2col` and, for each group, `gemm_acc16` make it, without its zero points.

    Args:
        x: uint8, one to three spatial axes, channels last.
        w: int8; all other arguments but the last are as of `conv_i32`.
        outliers: split the weights of each group by `split_outliers`, and add the product of the sparse part.

    Returns:
        int32, channels last, mod 2**32: the saturated sums less what the zero points add to exact ones.
    """
    rank = x.ndim - 2
    kernel = w.shape[2:]
    windows = im2col(
        x,
        kernel,
        x_zero_point,
        strides,
        pads,
        dilations,
        transposed=transposed,
        output_padding=output_padding,
    )
    # Each group's weight as (positions * channels, outputs).
    split = w.reshape(group, -1, *w.shape[1:])
    order = (*range(2, 2 + rank), 0, 1) if transposed else (*range(2, 2 + rank), 1, 0)
    sums, rows, offsets = [], [], []
    for number, part in enumerate(split):
        rhs = part.transpose(order).reshape(-1, part.shape[1 if transposed else 0])
        wide = x.shape[-1] // group
        lhs = windows[..., number * wide : (number + 1) * wide].reshape(-1, rhs.shape[0])
        dense, sparse = split_outliers(rhs) if outliers else (rhs, None)
        acc = gemm_acc16(lhs, dense)
        sums.append(acc if sparse is None else spmdm_i32(lhs, sparse, acc))
        rows.append(lhs.sum(1, dtype=np.int64))
        offsets.append(rhs.sum(0, dtype=np.int64))
    columns = sums[0].shape[1]
    zeros = each_column("w_zero_point", w_zero_point, group, group * columns).reshape(group, -1)
    depth = split[0].size // columns
    found = [
        acc - np.int64(x_zero_point) * (offset - depth * zero) - row[:, None] * zero
        for acc, row, offset, zero in zip(sums, rows, offsets, zeros, strict=True)
    ]
    return wrap_i32(np.hstack(found)).reshape(*windows.shape[: rank + 1], -1)


def gemm_maddubs(
    lhs: np.ndarray,
    rhs: np.ndarray,
    *,
    groups: int = 1,
    lhs_transposed: bool = False,
    rhs_transposed: bool = False,
) -> np.ndarray:
    """The product by `vpmaddubsw`, `vpmaddwd` with ones and `vpaddd`: sum of clip16(a0 * b0 + a1 * b1), mod 2**32.

    It is what FBGEMM's 32-bit kernels compute on CPUs without VNNI. It is exact where no pair leaves 16 bits, so for
    all weights in [-64, 64].

    Args:
        lhs, rhs, groups, lhs_transposed, rhs_transposed: as of `gemm_i32`; uint8 and int8.

    Returns:
        int32 `(..., rows, groups * columns)`, without any zero point taken off.
    """
    return _sum_of_pairs(lhs, rhs, groups, lhs_transposed, rhs_transposed, None)


def split_outliers(weight: np.ndarray, bits: int = 7) -> tuple[np.ndarray, SparseColumns]:
    """Weights as a dense matrix of few bits plus a sparse one of what does not fit it.

    A weight outside of [-2**(bits - 1), 2**(bits - 1)) goes to the sparse matrix whole, and leaves 0 behind: the rule
    of Caffe2's `ExtractOutlierMatrix`, which made the operands of FBGEMM's acc16 products. With 7 bits no pair of
    products saturates.

    Args:
        weight: int8 `(depth, columns)`.
        bits: of the dense part, 0 (all is sparse) to 8 (nothing is).

    Returns:
        int8 `(depth, columns)`, and the outliers.
    """
    if not 0 <= bits <= 8:
        raise InputError(f"bits is {bits}; expected 0 to 8")
    half = 2**bits // 2
    fits = (weight >= -half) & (weight < half)
    zero = np.zeros((), weight.dtype)
    return np.where(fits, weight, zero), SparseColumns.from_dense(np.where(fits, zero, weight))


def _sum_of_pairs(lhs, rhs, groups, lhs_transposed, rhs_transposed, flush: int | None):
    """Sums of saturated pairs: in 16 bits, moved to 32 after `flush` of the depth, or in 32 bits from the start."""
    if lhs.dtype != np.uint8 or rhs.dtype != np.int8:
        raise InputError(f"lhs and rhs are {lhs.dtype} and {rhs.dtype}, expected uint8 and int8")
    a, b = (
        side.astype(np.int32) for side in stacked(lhs, rhs, groups, lhs_transposed, rhs_transposed)
    )
    depth, limits = a.shape[-1], np.iinfo(np.int16)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = np.zeros((*batch, a.shape[-2], b.shape[-1]), np.int64)
    narrow = np.zeros(total.shape, np.int32)
    pair, last = np.empty_like(narrow), np.empty_like(narrow)
    for k in range(0, depth, 2):
        np.multiply(a[..., k, None], b[..., k, None, :], out=pair)
        if k + 1 < depth:
            pair += np.multiply(a[..., k + 1, None], b[..., k + 1, None, :], out=last)
        np.clip(pair, limits.min, limits.max, out=pair)
        if flush is None:
            total += pair
            continue
        narrow += pair
        np.clip(narrow, limits.min, limits.max, out=narrow)
        if k % flush == flush - 2:
            total += narrow
            narrow[:] = 0
    return wrap_i32(side_by_side(total + narrow))
