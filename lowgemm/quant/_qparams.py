"""Choosing scale and zero point for a range of real numbers."""

from dataclasses import dataclass

import numpy as np

# FBGEMM's bound: below it, the reciprocal of a product of two scales loses its precision.
_SMALLEST_SCALE = 6.1e-5
# Up to it, a float32 reciprocal is infinite.
_NO_RECIPROCAL = np.float32(2.0**-128)


@dataclass(frozen=True)
class QParams:
    """real = scale * (quantized - zero_point); `scale` is exactly a float32."""

    scale: float
    zero_point: int


def choose_qparams(
    low: float,
    high: float,
    qmin: int = 0,
    qmax: int = 255,
    *,
    symmetric: bool = False,
    power_of_two: bool = False,
) -> QParams:
    """FBGEMM's rule (ChooseQuantizationParams) for the parameters that map `[low, high]` onto `[qmin, qmax]`.

    The range is widened to hold 0, which then has an exact representation: padding and ReLU rely on
    it. The zero point comes from the end of the range whose rounding error is smaller.

    Args:
        low, high: the range of the real numbers; finite.
        qmin, qmax: the range of the integers.
        symmetric: where 0 lies inside the range, widen it to be symmetric (by a code less above than below), with the
            zero point in the middle of the codes, ties to even: 0 of int8, 128 of uint8. FBGEMM's `preserve_sparsity`.
        power_of_two: raise the scale to the next power of two. (One below 6.1e-5 becomes 6.1e-5 all the same.)
    """
    steps = qmax - qmin
    middle = symmetric and low < 0 < high
    if middle:
        # FBGEMM's steps: the two quotients and the ends are float32, the products float64.
        below, above = -(steps // 2 + 1), steps // 2
        peak = float(max(np.float32(low) / np.float32(below), np.float32(high) / np.float32(above)))
        low, high = float(np.float32(peak * below)), float(np.float32(peak * above))
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = np.float32((high - low) / steps)
    if scale <= _NO_RECIPROCAL:
        scale = np.float32(0.1)
    if power_of_two:
        exponent = np.ceil(np.log2(scale)) if scale >= 1 else -np.floor(np.log2(1 / float(scale)))
        scale = np.float32(2.0 ** int(exponent))
    if scale < _SMALLEST_SCALE:
        stretch = _SMALLEST_SCALE / float(scale)
        scale = np.float32(_SMALLEST_SCALE)
        if low == 0:
            high = _SMALLEST_SCALE * steps
        elif high == 0:
            low = -_SMALLEST_SCALE * steps
        else:
            low, high = low * stretch, high * stretch
    from_low = qmin - low / float(scale)
    from_high = qmax - high / float(scale)
    error_low = abs(qmin) + abs(low / float(scale))
    error_high = abs(qmax) + abs(high / float(scale))
    exact = from_low if error_low < error_high else from_high
    if middle:
        exact = (qmin + qmax) / 2
    return QParams(float(scale), min(max(round(exact), qmin), qmax))


def min_max(x: np.ndarray) -> tuple[float, float]:
    """The least and the greatest element of float32 `x`, which holds no NaN; (0, 0) of none: FBGEMM's FindMinMax."""
    return (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)


def choose_symmetric_scales(weight: np.ndarray, axis: int | None, qmax: int = 127) -> np.ndarray:
    """Scales for symmetric integers in `[-qmax, qmax]`, one for every index of `axis`.

    A channel of zeros gets scale 1, so that it stays zeros and divides nothing by zero.

    Returns:
        float32, `(weight.shape[axis],)`; where `axis` is None, a scalar array for all of it.
    """
    axes = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    peak = np.abs(weight).max(axis=axes, initial=0.0).astype(np.float64)
    scale = (peak / qmax).astype(np.float32)
    tiny = np.finfo(np.float32).tiny
    return np.where(scale < tiny, np.float32(1), scale)
