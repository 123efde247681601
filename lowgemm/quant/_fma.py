"""The fused multiply-add of float32, which numpy does not have."""

import numpy as np
from numpy.typing import ArrayLike


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> np.ndarray:
    """a * b + c rounded to float32 once, as the hardware's `vfmadd` does; arguments broadcast.

    Args:
        a, b, c: anything that float32 holds exactly.

    Returns:
        float32.
    """
    # The product of two float32 has at most 48 bits, which float64 holds. The sum is rounded to odd: towards zero, with
    # the last bit set if anything was lost. From there to float32, 29 bits shorter, no tie can arise that was not one
    # (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    x, y, z = (np.asarray(value, np.float32).astype(np.float64) for value in (a, b, c))
    with np.errstate(over="ignore", invalid="ignore"):
        product = x * y
        total = np.asarray(product + z)
        part = total - product
        lost = np.asarray((product - (total - part)) + (z - part))
    even = (total.view(np.int64) & 1) == 0
    inexact = np.isfinite(total) & (lost != 0) & even
    odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    with np.errstate(over="ignore"):
        return np.where(inexact, odd, total).astype(np.float32)
