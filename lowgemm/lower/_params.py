"""Constants that several integer kernels take."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lowgemm.quant import sum_factors


def add_params(attrs: Mapping[str, Any]) -> np.ndarray:
    """What a sum of codes needs, float32 `(sa / sy, sb / sy, fixed, low, high)`; `attrs` are a QAdd's."""
    factors = sum_factors(*(params.pair for params in (*attrs["in"], attrs["out"])))
    return np.array((*factors, attrs["low"], attrs["high"]), np.float32)
