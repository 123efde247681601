"""The sum of two quantized tensors, in the arithmetic of its kernels."""

import numpy as np

from lowgemm.quant._fma import fma


def sum_factors(
    first: tuple[float, int], second: tuple[float, int], out: tuple[float, int]
) -> tuple[np.float32, np.float32, np.float32]:
    """(ra, rb, fixed) with which `add_codes` adds: each (scale, zero point) that of a tensor.

    ra = sa / sy, rb = sb / sy, fixed = zy - fma(za, ra, zb * rb), each rounded to float32.
    """
    (sa, za), (sb, zb), (sy, zy) = first, second, out
    ra, rb = (np.float32(s) / np.float32(sy) for s in (sa, sb))
    offset = fma(np.array(za), ra, np.float32(zb) * rb)
    return ra, rb, np.float32(np.float32(zy) - offset)


def add_codes(
    a: np.ndarray,
    b: np.ndarray,
    factors: tuple[np.float32, np.float32, np.float32],
    low: int,
    high: int,
    dtype: str | np.dtype,
) -> np.ndarray:
    """y = clamp(rint(fma(a, ra, fma(b, rb, fixed))), low, high), ties to even.

    It is how ONNX Runtime's QLinearAdd computes (a - za) * sa + (b - zb) * sb over sy, plus zy: the zero points are
    folded into one constant, so ties are those of the sum with the zero point in it.
    """
    ra, rb, fixed = factors
    total = fma(a.astype(np.int64), ra, fma(b.astype(np.int64), rb, fixed))
    return np.clip(np.rint(total), low, high).astype(dtype)
