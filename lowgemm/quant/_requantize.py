"""From a 32-bit accumulator to an 8-bit output: the two rounding policies.

`rne` multiplies with a float32 and rounds ties to even; `fixed_point` multiplies with a 31-bit
integer, shifts, and rounds ties up. They differ. All kernels follow `rne`.
"""

from dataclasses import dataclass

import numpy as np


def requantize(
    acc: np.ndarray,
    multiplier: np.ndarray | float,
    zero_point: int = 0,
    dtype: str | np.dtype = "uint8",
    *,
    lower: int | None = None,
    upper: int | None = None,
) -> np.ndarray:
    """q = clamp(rint(float32(acc) * float32(multiplier)) + zero_point), ties to even.

    Args:
        acc: int32; zero points of the operands are taken off and the bias is added already.
        multiplier: float32, broadcasts with `acc`: lhs scale * rhs scale / output scale.
        zero_point: the output's, added after rounding.
        dtype: the output's type.
        lower, upper: a narrower clamp in output integers (ReLU: `lower=zero_point`).
    """
    limits = np.iinfo(dtype)
    product = np.asarray(acc, np.int32).astype(np.float32) * np.asarray(multiplier, np.float32)
    # float64 adds the zero point without a second rounding.
    shifted = np.rint(product).astype(np.float64) + zero_point
    low = limits.min if lower is None else max(limits.min, lower)
    high = limits.max if upper is None else min(limits.max, upper)
    return np.clip(shifted, low, high).astype(dtype)


@dataclass(frozen=True)
class FixedPoint:
    """A positive real number as `multiplier * 2**-shift`, multiplier in `[2**30, 2**31)`."""

    multiplier: int
    shift: int


def choose_fixed_point(real: float) -> FixedPoint:
    """The nearest `FixedPoint` to a multiplier in `(0, 1)`, with 31 bits.

    Raises:
        ValueError: `real` is outside `(0, 1)`, or so small that every product shifts to 0.
    """
    if not 0 < real < 1:
        raise ValueError(f"a fixed-point multiplier is in (0, 1), not {real}")
    fraction, exponent = np.frexp(real)
    multiplier, shift = int(np.rint(float(fraction) * 2**31)), 31 - int(exponent)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift - 1
    if shift > 62:
        raise ValueError(f"{real} is too small for a fixed-point multiplier")
    return FixedPoint(multiplier, shift)


def requantize_fixed_point(
    acc: np.ndarray, fixed: FixedPoint, zero_point: int = 0, dtype: str | np.dtype = "uint8"
) -> np.ndarray:
    """q = clamp(((acc * multiplier + 2**(shift-1)) >> shift) + zero_point), in int64: ties up."""
    limits = np.iinfo(dtype)
    product = np.asarray(acc, np.int32).astype(np.int64) * fixed.multiplier
    shifted = (product + (1 << (fixed.shift - 1))) >> fixed.shift
    return np.clip(shifted + zero_point, limits.min, limits.max).astype(dtype)
