"""Resize: nearest, linear and cubic, one axis after the other."""

import numpy as np

from lowgemm.reference._table import Attrs, Operator, rounded, to_double


def coordinates(mode: str, size: int, out: int, scale: float) -> np.ndarray:
    """Where every output index lies among the inputs, as real numbers (float32, as ORT has it)."""
    index = np.arange(out, dtype=np.float32)
    scale32 = np.float32(scale)
    if mode == "half_pixel":
        return (index + np.float32(0.5)) / scale32 - np.float32(0.5)
    if mode == "half_pixel_symmetric":
        # The exact output size may be no integer: the difference is shared by both ends.
        adjustment = out / (scale * size)
        centre = size / 2
        offset = centre * (1 - adjustment)
        return (offset + (index + 0.5) / scale - 0.5).astype(np.float32)
    if mode == "pytorch_half_pixel":
        if out == 1:
            return np.zeros(1, np.float32)
        return (index + np.float32(0.5)) / scale32 - np.float32(0.5)
    if mode == "align_corners":
        if out == 1:
            return np.zeros(1, np.float32)
        return index * np.float32(size - 1) / np.float32(out - 1)
    if mode == "asymmetric":
        return index / scale32
    raise ValueError(f"no coordinate transformation {mode!r}")


def nearest_index(attrs: Attrs, size: int, out: int, scale: float) -> np.ndarray:
    """The input index that every output index takes its element from (nearest only)."""
    x = coordinates(attrs["coordinate_transformation_mode"], size, out, scale)
    mode = attrs["nearest_mode"]
    if mode == "floor":
        index = np.floor(x)
    elif mode == "ceil":
        index = np.ceil(x)
    elif mode == "round_prefer_ceil":
        index = np.floor(x + np.float32(0.5))
    else:
        index = np.ceil(x - np.float32(0.5))
    return np.clip(index, 0, size - 1).astype(np.int64)


def axis_weights(attrs: Attrs, size: int, out: int, scale: float) -> np.ndarray:
    """`(out, size)`: how much of every input element is in every output element of an axis."""
    x = coordinates(attrs["coordinate_transformation_mode"], size, out, scale).astype(np.float64)
    base = np.floor(x).astype(np.int64)
    fraction = x - base
    if attrs["mode"] == "linear":
        shares = {0: 1 - fraction, 1: fraction}
    else:
        a = attrs["cubic_coeff_a"]
        shares = {offset: _cubic(np.abs(fraction - offset), a) for offset in (-1, 0, 1, 2)}
    weights = np.zeros((out, size))
    for offset, share in shares.items():
        index = base + offset
        inside = (index >= 0) & (index < size)
        if attrs["exclude_outside"] and attrs["mode"] == "cubic":
            share = np.where(inside, share, 0)
        np.add.at(weights, (np.arange(out), np.clip(index, 0, size - 1)), share)
    if attrs["exclude_outside"] and attrs["mode"] == "cubic":
        weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _resize(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    if attrs["mode"] == "nearest":
        for axis, (out, scale) in enumerate(zip(attrs["sizes"], attrs["scales"], strict=True)):
            if out != x.shape[axis] or scale != 1:
                x = np.take(x, nearest_index(attrs, x.shape[axis], out, scale), axis=axis)
        return x
    y = to_double(x)
    for axis, (out, scale) in enumerate(zip(attrs["sizes"], attrs["scales"], strict=True)):
        if out != x.shape[axis] or scale != 1:
            weights = axis_weights(attrs, x.shape[axis], out, scale)
            y = np.moveaxis(np.tensordot(weights, y, axes=(1, axis)), 0, axis)
    return rounded(y, x)


OPERATORS: dict[str, Operator] = {"Resize": _resize}
