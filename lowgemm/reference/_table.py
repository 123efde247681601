"""The form of an operator: attributes, then one array (or None) for every input."""

from collections.abc import Callable
from typing import Any

import numpy as np

Attrs = dict[str, Any]
# Optional inputs are None; the result is an array, or a tuple of several.
Operator = Callable[..., np.ndarray | tuple[np.ndarray, ...]]


def to_double(x: np.ndarray) -> np.ndarray:
    """Real numbers in float64, where one operator's rounding errors do not show in float32."""
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def rounded(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The one rounding at the end of an operator."""
    return np.asarray(value).astype(like.dtype)
