"""Constants that several integer kernels take."""

import numpy as np

from lowgemm.passes import Quantization
from lowgemm.quant import sum_factors


def add_params(
    first: Quantization, second: Quantization, out: Quantization, low: int, high: int
) -> np.ndarray:
    """What a sum of codes needs, float32 `(sa / sy, sb / sy, fixed, low, high)`."""
    return np.array((*sum_factors(first.pair, second.pair, out.pair), low, high), np.float32)
