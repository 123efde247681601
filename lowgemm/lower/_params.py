"""Constants that several integer kernels take."""

import numpy as np

from lowgemm.passes import Quantization, add_ratios


def add_params(
    first: Quantization, second: Quantization, out: Quantization, low: int, high: int
) -> np.ndarray:
    """What a sum of codes needs, float32 `(za, sa / sy, zb, sb / sy, zy, low, high)`."""
    ratios = add_ratios(first, second, out)
    values = (first.zero_point, ratios[0], second.zero_point, ratios[1], out.zero_point, low, high)
    return np.array(values, np.float32)
