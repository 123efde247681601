"""From a 32-bit accumulator to an 8-bit output: the two rounding policies.

`rne` multiplies with a float32 and rounds ties to even; `fixed_point` multiplies with a 31-bit
integer, shifts, and rounds ties up. They differ. All kernels follow `rne`.
"""

from collections.abc import Sequence
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
    product = np.asarray(acc, np.int32).astype(np.float32) * np.asarray(multiplier, np.float32)
    # float64 adds the zero point without a second rounding.
    shifted = np.rint(product).astype(np.float64) + zero_point
    return np.clip(shifted, *_range(dtype, lower, upper)).astype(dtype)


@dataclass(frozen=True)
class FixedPoint:
    """A positive real number as `multiplier * 2**-shift`, multiplier in `[2**30, 2**31)`."""

    multiplier: int
    shift: int


def choose_fixed_point(real: float) -> FixedPoint:
    """The nearest `FixedPoint` to a multiplier in `(0, 2**30)`, with 31 bits.

    FBGEMM's `ChooseRequantizationMultiplier`.

    Raises:
        ValueError: `real` is outside `(0, 2**30)`, or so small that every product shifts to 0.
    """
    if not 0 < real < 2**30:
        raise ValueError(f"a fixed-point multiplier is in (0, 2**30), not {real}")
    fraction, exponent = np.frexp(real)
    multiplier, shift = int(np.rint(float(fraction) * 2**31)), 31 - int(exponent)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift - 1
    if shift > 62:
        raise ValueError(f"{real} is too small for a fixed-point multiplier")
    return FixedPoint(multiplier, shift)


def requantize_fixed_point(
    acc: np.ndarray,
    fixed: FixedPoint | Sequence[FixedPoint],
    zero_point: int = 0,
    dtype: str | np.dtype = "uint8",
    *,
    lower: int | None = None,
    upper: int | None = None,
) -> np.ndarray:
    """q = clamp(((acc * multiplier + 2**(shift-1)) >> shift) + zero_point), in int64: ties up.

    FBGEMM's `RequantizeFixedPoint`.

    Args:
        acc: int32, as of `requantize`.
        fixed: one, or one for every index of the last axis of `acc`.
        zero_point, dtype, lower, upper: as of `requantize`.
    """
    each = [fixed] if isinstance(fixed, FixedPoint) else fixed
    multiplier = np.array([f.multiplier for f in each], np.int64)
    shift = np.array([f.shift for f in each], np.int64)
    product = np.asarray(acc, np.int32).astype(np.int64) * multiplier
    shifted = (product + (1 << (shift - 1))) >> shift
    return np.clip(shifted + zero_point, *_range(dtype, lower, upper)).astype(dtype)


def _range(dtype: str | np.dtype, lower: int | None, upper: int | None) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return (
        limits.min if lower is None else max(limits.min, lower),
        limits.max if upper is None else min(limits.max, upper),
    )
