"""Between real numbers and 8-bit integers: real = scale * (quantized - zero_point)."""

import numpy as np

from lowgemm.errors import InputError


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
        scale: float32 scalar, `(x.shape[axis],)`, or one for every group of neighbouring indices. Never 0.
        zero_point: the same, integers.
        dtype: the integer type of the result; its range is the clamp.
        axis: which axis of `x` the parameters belong to; None for one pair for all of `x`.
    """
    limits = np.iinfo(dtype)
    values = np.asarray(x, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite quotient is clamped
        quotient = values / _along(np.asarray(scale, np.float32), values.shape, axis)
    # float64 holds every rounded quotient plus a zero point exactly as far as the clamp can tell.
    rounded = np.rint(quotient).astype(np.float64)
    shifted = rounded + _along(np.asarray(zero_point, np.int64), values.shape, axis)
    return _clamp(shifted, limits).astype(dtype)


def quantize_reciprocal(
    x: np.ndarray,
    scale: np.ndarray | np.floating | float,
    zero_point: np.ndarray | int = 0,
    dtype: str | np.dtype = "uint8",
    axis: int | None = None,
) -> np.ndarray:
    """FBGEMM's Quantize: q = clamp(rint(x * (1 / scale)) + zero_point), ties to even.

    The reciprocal is rounded to float32 once, and the product again: codes differ from `quantize_linear`'s next to ties
    (0.273939937 at scale 0.00214854861 is 127.5 here, and 127.499992 there). The zero point is added in float32, which
    int32 codes beyond 2**24 show.

    With one scale for every group of channels it is QuantizeGroupwise: axis 1 for its layout KCX, the last for KXC.

    Args:
        x: float32, any shape. Of a NaN the code is the least one.
        scale: float32 scalar, `(x.shape[axis],)`, or one for every group of neighbouring indices.
        zero_point: the same, integers.
        dtype: the integer type of the result; its range is the clamp.
        axis: which axis of `x` the parameters belong to; None for one pair for all of `x`.

    Raises:
        InputError: a scale is NaN, or its reciprocal is infinite in float32.
    """
    values = np.asarray(x, np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / np.asarray(scale, np.float32)
    if not np.isfinite(inverse).all():
        raise InputError("scale: expected float32 numbers with a finite reciprocal")
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(values * _along(inverse, values.shape, axis))
    points = np.asarray(zero_point, np.float32)
    return _clamp(
        (rounded + _along(points, values.shape, axis)).astype(np.float64), np.iinfo(dtype)
    ).astype(dtype)


def quantize_dequantize(
    x: np.ndarray,
    scale: np.ndarray | np.floating | float,
    zero_point: np.ndarray | int = 0,
    dtype: str | np.dtype = "uint8",
    axis: int | None = None,
) -> np.ndarray:
    """FBGEMM's FusedQuantizeDequantize: what `dequantize_linear` makes of the codes of `quantize_reciprocal`.

    Args: those of `quantize_reciprocal`.

    Returns:
        float32, the shape of `x`.
    """
    return dequantize_linear(
        quantize_reciprocal(x, scale, zero_point, dtype, axis), scale, zero_point, axis
    )


def dequantize_linear(
    q: np.ndarray,
    scale: np.ndarray | np.floating | float,
    zero_point: np.ndarray | int = 0,
    axis: int | None = None,
) -> np.ndarray:
    """ONNX's DequantizeLinear: scale * (q - zero_point), the difference exact, one float32 product.

    FBGEMM's Dequantize is the same.

    Args:
        q: any integer type, any shape.
        scale: float32 scalar, `(q.shape[axis],)`, or one for every group of neighbouring indices.
        zero_point: the same, integers.
        axis: which axis of `q` the parameters belong to; None for one pair for all of `q`.

    Returns:
        float32, the shape of `q`.
    """
    integers = np.asarray(q, np.int64)
    difference = integers - _along(np.asarray(zero_point, np.int64), integers.shape, axis)
    factor = _along(np.asarray(scale, np.float32), integers.shape, axis)
    return difference.astype(np.float32) * factor


def _clamp(value: np.ndarray, limits: np.iinfo) -> np.ndarray:
    # NaN has no integer; the hardware's conversion gives INT_MIN, which clamps to the least one.
    return np.clip(np.nan_to_num(value, nan=limits.min), limits.min, limits.max)


def _along(parameter: np.ndarray, shape: tuple[int, ...], axis: int | None) -> np.ndarray:
    """Shape a parameter so that it broadcasts over `axis` of a tensor of `shape`."""
    if axis is None or parameter.ndim == 0:
        return parameter.reshape(()) if parameter.size == 1 else parameter
    size = shape[axis]
    if size % parameter.size == 0:  # one for every group
        parameter = np.repeat(parameter.reshape(-1), size // parameter.size)
    wide = [1] * len(shape)
    wide[axis] = parameter.size
    return parameter.reshape(wide)
