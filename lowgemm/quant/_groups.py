"""Weights of few bits whose depth is cut into groups, each with a scale for every column."""

import numpy as np

from lowgemm.errors import InputError


def quantize_groups(
    weight: np.ndarray, group_size: int, bits: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each group of each column to signed codes, symmetrically.

    scale = max |w| / (2**(bits - 1) - 1), rounded to float32, or 1 in a group of zeros; code = rint(w / scale), ties to
    even. It is round-to-nearest as GPTQ and AWQ compare themselves with.

    Args:
        weight: float32 `(depth, columns)`, finite.
        group_size: how many neighbours along the depth share a scale; the last group may be smaller.
        bits: 2 to 8.

    Returns:
        int8 `(depth, columns)` in [-(2**(bits - 1) - 1), 2**(bits - 1) - 1], float32 `(groups, columns)`.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"bits is {bits}; expected 2 to 8")
    group = _group_of_each(weight.shape[0], group_size)
    top = 2 ** (bits - 1) - 1
    peaks = np.zeros((-(-weight.shape[0] // group_size), weight.shape[1]), np.float32)
    np.maximum.at(peaks, group, np.abs(weight))
    scales = (peaks.astype(np.float64) / top).astype(np.float32)
    scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)
    codes = np.rint(weight.astype(np.float32) / scales[group])
    return np.clip(codes, -top, top).astype(np.int8), scales


def dequantize_groups(
    codes: np.ndarray, scales: np.ndarray, group_size: int, zero_points: np.ndarray | None = None
) -> np.ndarray:
    """scale * (code - zero_point), the difference exact, one float32 product.

    Args:
        codes: int8 or uint8 `(depth, columns)`.
        scales: float32 `(groups, columns)`.
        group_size: how many neighbours along the depth share a scale; the last group may be smaller.
        zero_points: integers `(groups, columns)`; None for zeros.

    Returns:
        float32 `(depth, columns)`.
    """
    group = _group_of_each(codes.shape[0], group_size)
    if scales.shape != (-(-codes.shape[0] // group_size), codes.shape[1]):
        expected = (-(-codes.shape[0] // group_size), codes.shape[1])
        raise InputError(f"scales is {scales.shape}; expected {expected}")
    points = 0 if zero_points is None else zero_points.astype(np.int32)[group]
    return scales.astype(np.float32)[group] * (codes.astype(np.int32) - points).astype(np.float32)


def _group_of_each(depth: int, group_size: int) -> np.ndarray:
    """The group of every row of the weights."""
    if group_size < 1:
        raise InputError(f"group_size is {group_size}; expected at least 1")
    return np.arange(depth) // group_size
