"""The hard-swish of codes in float32, where that gives the codes of its table."""

import numpy as np

from lowgemm.quant._fma import fma


def hard_swish_factors(
    first: tuple[float, int], out: tuple[float, int], factor: float, term: float
) -> np.ndarray:
    """(slope, half, least, most, fixed), float32, by which `hard_swish_codes` has factor * hard_swish(x) + term.

    hard_swish(x) = x * clip(x / 6 + 1 / 2, 0, 1), as ONNX has it; `factor` is positive. `first` and `out` are (scale,
    zero point) of x and of the result. What a step of x is multiplied with, its gate, is in steps
    of the result: `least`, which is 0, to `most`.
    """
    (step, _), (out_step, zero) = first, out
    most = factor * step / out_step
    return np.array((most * step / 6, most / 2, 0.0, most, zero + term / out_step), np.float32)


def hard_swish_codes(steps: np.ndarray, factors: np.ndarray, dtype: str | np.dtype) -> np.ndarray:
    """y = clamp(rint(fma(q, clip(fma(q, slope, half), least, most), fixed))), ties to even, of codes less their zero
    point, q = `steps`; clamped to all of `dtype` (uint8 or int8)."""
    slope, half, least, most, fixed = factors
    gate = np.minimum(np.maximum(fma(steps, slope, half), least), most)
    ends = np.iinfo(dtype)
    return np.clip(np.rint(fma(steps, gate, fixed)), ends.min, ends.max).astype(dtype)
