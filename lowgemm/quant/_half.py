"""The 16-bit float formats: bfloat16, which numpy does not have and which is held as its bits, and float16."""

import numpy as np

from lowgemm.errors import InputError

FLOAT16_MAX = 65504.0


def to_bfloat16(x: np.ndarray, rounding: str = "rne") -> np.ndarray:
    """The bits of bfloat16: the upper half of float32, rounded.

    "rne" rounds to nearest, ties to even, as `vcvtneps2bf16` does; a NaN keeps its sign and upper bits and becomes
    quiet. (That instruction also takes subnormal numbers, of input and output, for zero. Here they are kept.)

    "half_up" is FBGEMM's `FloatToBfloat16_ref`: (bits + 0x8000) >> 16, so ties go away from zero. The sum wraps: a NaN
    of all ones becomes -0.

    Args:
        x: float32, any shape.
        rounding: "rne" or "half_up".

    Returns:
        uint16, the shape of `x`.
    """
    bits = np.asarray(x, np.float32).view(np.uint32)
    upper = bits >> 16
    if rounding == "half_up":
        return ((bits + np.uint32(0x8000)) >> 16).astype(np.uint16)
    if rounding != "rne":
        raise InputError(f"rounding is {rounding!r}; expected 'rne' or 'half_up'")
    rounded = (bits + np.uint32(0x7FFF) + (upper & 1)) >> 16
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, upper | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 of the bits of bfloat16 (uint16, any shape): exact."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def to_float16(x: np.ndarray, clip: bool = False) -> np.ndarray:
    """float16, rounded to nearest, ties to even: FBGEMM's `FloatToFloat16_ref`.

    Args:
        x: float32, any shape.
        clip: clamp to +-65504 first, where otherwise larger numbers become infinite. (A NaN stays one; FBGEMM's clamp
            makes -65504 of it.)
    """
    values = np.asarray(x, np.float32)
    with np.errstate(over="ignore"):
        return (np.clip(values, -FLOAT16_MAX, FLOAT16_MAX) if clip else values).astype(np.float16)
