"""Between real numbers and 8-bit integers: real = scale * (quantized - zero_point)."""

import numpy as np


def quantize_linear(
    x: np.ndarray,
    scale: np.ndarray | np.floating | float,
    zero_point: np.ndarray | int = 0,
    dtype: str | np.dtype = "uint8",
    axis: int | None = None,
) -> np.ndarray:
    """ONNX's QuantizeLinear: q = clamp(rint(x / scale) + zero_point), ties to even.

    The quotient is a float32 division, and the zero point is added after rounding.

    Args:
        x: float32, any shape.
        scale: float32 scalar, or `(x.shape[axis],)`. Never 0.
        zero_point: a scalar, or `(x.shape[axis],)`.
        dtype: the integer type of the result; its range is the clamp.
        axis: which axis of `x` the parameters belong to; None for one pair for all of `x`.
    """
    limits = np.iinfo(dtype)
    values = np.asarray(x, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite quotient is clamped
        quotient = values / _along(np.asarray(scale, np.float32), values.ndim, axis)
    # float64 holds every rounded quotient plus a zero point exactly as far as the clamp can tell.
    rounded = np.rint(quotient).astype(np.float64)
    shifted = rounded + _along(np.asarray(zero_point, np.int64), values.ndim, axis)
    return _clamp(shifted, limits).astype(dtype)


def dequantize_linear(
    q: np.ndarray,
    scale: np.ndarray | np.floating | float,
    zero_point: np.ndarray | int = 0,
    axis: int | None = None,
) -> np.ndarray:
    """ONNX's DequantizeLinear: scale * (q - zero_point), the difference exact, one float32 product.

    Args:
        q: any integer type, any shape.
        scale: float32 scalar, or `(q.shape[axis],)`.
        zero_point: a scalar, or `(q.shape[axis],)`.
        axis: which axis of `q` the parameters belong to; None for one pair for all of `q`.

    Returns:
        float32, the shape of `q`.
    """
    integers = np.asarray(q, np.int64)
    rank = integers.ndim
    difference = integers - _along(np.asarray(zero_point, np.int64), rank, axis)
    return difference.astype(np.float32) * _along(np.asarray(scale, np.float32), rank, axis)


def _clamp(value: np.ndarray, limits: np.iinfo) -> np.ndarray:
    # NaN has no integer; the hardware's conversion gives INT_MIN, which clamps to the least one.
    return np.clip(np.nan_to_num(value, nan=limits.min), limits.min, limits.max)


def _along(parameter: np.ndarray, rank: int, axis: int | None) -> np.ndarray:
    """Shape a parameter so that it broadcasts over `axis` of a tensor of `rank` axes."""
    if axis is None or parameter.ndim == 0:
        return parameter.reshape(()) if parameter.size == 1 else parameter
    shape = [1] * rank
    shape[axis] = parameter.size
    return parameter.reshape(shape)
