"""Between real numbers, 32-bit sums and codes."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np

from lowgemm import quant
from lowgemm.ops._arrays import OperandError, one_of, positive_scale
from lowgemm.ops._axis import WORK, along, pointwise
from lowgemm.ops._prepared import Prepared, operand, resolve, result, target_key
from lowgemm.quant import QParams
from lowgemm.targets import CpuTarget

_FLOAT32, _INT32 = (np.dtype(np.float32),), (np.dtype(np.int32),)
_CODES = (np.dtype(np.uint8), np.dtype(np.int8))
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
_ONE = np.float32(1)
# Above it, a float32 has a finite reciprocal.
_LEAST = np.float32(3e-39)

# A number, or an array of them.
Values = float | np.ndarray


def quantize(
    x: Any,
    scale: Any,
    zero_point: Any = 0,
    dtype: Literal["uint8", "int8"] = "uint8",
    axis: int | None = None,
    *,
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """q = clamp(rint(x * (1 / scale)) + zero_point), ties to even: FBGEMM's Quantize and QuantizeGroupwise.

    The reciprocal is a float32, and so is the product. Of a NaN the code is the least one.

    Args:
        x: float32, any shape.
        scale: the real value of a step. A number; or, along `axis`, one for every index or for every group of
            neighbouring indices.
        zero_point: the code of 0: a number, or as many as scales.
        dtype: the type of the codes; its range is the clamp.
        axis: the axis of `x` that scales belong to.
        out: where to write, of the shape of `x`, apart from it; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        The codes, of the shape of `x`.

    Raises:
        OperandError: naming the argument, what was expected and what came; a scale that is not above zero, or whose
            reciprocal is infinite.
    """
    x = operand(x, "x", _FLOAT32)
    params = (_inverses(scale), _zero_points(zero_point, dtype))
    kernel = functools.partial(_quantize_kernel, dtype, target_key(target))
    out = result(out, x.shape, np.dtype(dtype), x)
    along(kernel, x, params, axis, out)
    return out


def dequantize(
    q: Any,
    scale: Any,
    zero_point: Any = 0,
    axis: int | None = None,
    *,
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """x = (q - zero_point) * scale, the difference exact, the product in float32: FBGEMM's and ONNX's.

    Args:
        q: uint8 or int8, any shape.
        scale, zero_point, axis, out, target: as of `quantize`, for the shape of `q`.

    Returns:
        float32, of the shape of `q`.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    q = operand(q, "q", _CODES)
    dtype = "uint8" if q.dtype == _CODES[0] else "int8"
    params = (_scales(scale, "scale"), _zero_points(zero_point, dtype))
    kernel = functools.partial(_dequantize_kernel, dtype, target_key(target))
    out = result(out, q.shape, np.dtype(np.float32), q)
    along(kernel, q, params, axis, out)
    return out


def quantize_dequantize(
    x: Any,
    scale: Any,
    zero_point: Any = 0,
    dtype: Literal["uint8", "int8"] = "uint8",
    axis: int | None = None,
    *,
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """What `dequantize` makes of the codes of `quantize`, which are not stored: FBGEMM's FusedQuantizeDequantize.

    Args: those of `quantize`.

    Returns:
        float32, of the shape of `x`.

    Raises:
        OperandError: as of `quantize`.
    """
    x = operand(x, "x", _FLOAT32)
    params = (_inverses(scale), _scales(scale, "scale"), _zero_points(zero_point, dtype))
    kernel = functools.partial(_quantize_back_kernel, dtype, target_key(target))
    out = result(out, x.shape, np.dtype(np.float32), x)
    along(kernel, x, params, axis, out)
    return out


def requantize(
    acc: Any,
    multiplier: Any,
    zero_point: int = 0,
    dtype: Literal["uint8", "int8"] = "uint8",
    axis: int | None = None,
    *,
    bias: Any = None,
    bias_scale: Any = None,
    relu: bool = False,
    rounding: Literal["rne", "fixed_point"] = "rne",
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """The codes of 32-bit sums: FBGEMM's Requantize and RequantizeFixedPoint, `quant.requantize` here.

    "rne": q = clamp(rint(float32(acc + bias) * multiplier) + zero_point), ties to even. A float32 bias is added to the
    float32 of acc, as bias / bias_scale.
    "fixed_point": q = clamp(((acc + bias) * m + 2**(s - 1) >> s) + zero_point) in 64 bits, ties up, with the 31-bit m
    and the shift s of `quant.choose_fixed_point(float32(multiplier))`.

    Args:
        acc: int32 `(..., columns)`: zero points of the operands taken off already.
        multiplier: lhs scale * rhs scale / output scale, above zero. A number; or, along `axis`, one for every index or
            for every group of neighbouring indices. "fixed_point" takes it below 2**30.
        zero_point: of the output, added after rounding.
        dtype: the type of the codes; its range is the clamp.
        axis: the axis of `acc` that multipliers belong to: -1 for columns, -2 for rows.
        bias: int32 `(columns,)`, added modulo 2**32; or, with "rne", float32 `(columns,)` in real units.
        bias_scale: of a float32 bias: lhs scale * rhs scale, a number or `(columns,)`.
        relu: no code below the zero point.
        rounding: "rne" or "fixed_point".
        out: where to write, of the shape of `acc`; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        The codes, of the shape of `acc`.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    acc = operand(acc, "acc", _INT32)
    one_of("rounding", rounding, ("rne", "fixed_point"))
    factors: tuple[Any, ...] = (_scales(multiplier, "multiplier"),)
    low, high = _limits(dtype)
    if not isinstance(zero_point, int | np.integer) or not low <= zero_point <= high:
        raise OperandError(
            f"zero_point: expected an integer from {low} to {high}, got {zero_point}"
        )
    low = max(low, zero_point) if relu else low
    limits: tuple[float, ...] = (float(zero_point), float(low), float(high))
    if rounding == "fixed_point":
        factors, limits = _fixed_point(factors[0]), (zero_point, low, high)
        if acc.ndim and factors[0].size == 1:
            # Of a multiplier that is read in the loop LLVM knows that it has 32 bits, and multiplies once for three
            # times.
            factors, axis = tuple(np.resize(f, acc.shape[-1]) for f in factors), -1
    biases = () if bias is None else (_bias(bias, bias_scale, acc.shape, rounding),)
    kind = biases[0].dtype.name if biases else None
    kernel = functools.partial(_requantize_kernel, dtype, kind, rounding, target_key(target))
    out = result(out, acc.shape, np.dtype(dtype), acc)
    along(kernel, acc, factors, axis, out, biases, limits)
    return out


def min_max(x: Any, *, target: str | CpuTarget = "host") -> tuple[float, float]:
    """The least and the greatest element, (0, 0) of an empty array: FBGEMM's FindMinMax.

    Args:
        x: float32, any shape.
        target: an instruction-set level, or "host".

    Returns:
        (least, greatest), each exactly a float32.

    Raises:
        OperandError: `x` is of another dtype or layout, or an element is NaN.
    """
    x = operand(x, "x", _FLOAT32)
    if x.size == 0:
        return 0.0, 0.0
    found = np.empty(3, np.float32)
    _min_max_kernel(target_key(target))(x.size * WORK, x.reshape(-1), found)
    low, high, nan = found.tolist()
    if nan:
        raise OperandError("x: expected numbers, got a NaN")
    return low, high


def choose_qparams(
    x: Any,
    dtype: Literal["uint8", "int8"] = "uint8",
    *,
    symmetric: bool = False,
    power_of_two: bool = False,
    target: str | CpuTarget = "host",
) -> QParams:
    """The scale and the zero point that map the range of `x` onto the codes: `quant.choose_qparams` of `min_max`.

    It is FBGEMM's ChooseQuantizationParams: the range is widened to hold 0, which gets a code of its own.

    Args:
        x: float32, any shape, finite.
        dtype: the type of the codes.
        symmetric: put the zero point into the middle of the codes, where 0 lies inside the range (FBGEMM's
            `preserve_sparsity`).
        power_of_two: raise the scale to the next power of two.
        target: an instruction-set level, or "host".

    Returns:
        `scale`, exactly a float32, and `zero_point`: real = scale * (code - zero_point).

    Raises:
        OperandError: `x` is of another dtype or layout, or an element is NaN or infinite.
    """
    low, high = min_max(x, target=target)
    if not np.isfinite(low) or not np.isfinite(high):
        raise OperandError(f"x: expected finite elements, got the range {low} to {high}")
    limits = _limits(dtype)
    return quant.choose_qparams(low, high, *limits, symmetric=symmetric, power_of_two=power_of_two)


def _scales(value: Any, name: str) -> Values:
    """Scales as float32, finite and above zero; a number where there is one."""
    if type(value) is float and 0.0 < (single := np.float32(value)) < np.inf:
        return float(single)
    return positive_scale(value, name)


def _inverses(scale: Any) -> Values:
    """Reciprocals of scales, float32; a number where there is one."""
    scales = _scales(scale, "scale")
    if type(scales) is float and scales > _LEAST:
        return float(_ONE / np.float32(scales))
    with np.errstate(over="ignore"):
        inverse = np.asarray(_ONE / np.asarray(scales, np.float32))
    if not np.isfinite(inverse).all():
        bad = np.asarray(scales)[~np.isfinite(inverse)].flat[0]
        raise OperandError(f"scale: expected float32 numbers with a finite reciprocal, got {bad}")
    return inverse


def _zero_points(zero_point: Any, dtype: str) -> Values:
    """Zero points as floats; a number where there is one."""
    low, high = _limits(dtype)
    if type(zero_point) is int and low <= zero_point <= high:
        return float(zero_point)
    points = np.asarray(zero_point)
    if points.dtype.kind not in "iu" or ((points < low) | (points > high)).any():
        raise OperandError(f"zero_point: expected integers from {low} to {high}, got {zero_point}")
    return points.astype(np.float32)


def _limits(dtype: str) -> tuple[int, int]:
    """The ends of the codes of a dtype."""
    one_of("dtype", dtype, tuple(_LIMITS))
    return _LIMITS[dtype]


def _fixed_point(multiplier: Values) -> tuple[np.ndarray, np.ndarray]:
    """(multipliers, shifts) of `quant.choose_fixed_point`, int32."""
    try:
        fixed = [quant.choose_fixed_point(float(m)) for m in np.asarray(multiplier).reshape(-1)]
    except ValueError as error:
        raise OperandError(f"multiplier: {error}") from None
    numbers = ([f.multiplier for f in fixed], [f.shift for f in fixed])
    first, second = (np.array(each, np.int32) for each in numbers)
    return first, second


def _bias(bias: Any, bias_scale: Any, shape: tuple[int, ...], rounding: str) -> np.ndarray:
    kinds = _INT32 if rounding == "fixed_point" else (*_INT32, *_FLOAT32)
    bias = operand(bias, "bias", kinds)
    if not shape or bias.shape != shape[-1:]:
        raise OperandError(f"bias: expected shape {shape[-1:]}, got shape {bias.shape}")
    if (bias_scale is not None) != (bias.dtype == np.float32):
        raise OperandError("bias_scale: expected beside a float32 bias, and only there")
    if bias_scale is None:
        return bias
    scales = positive_scale(bias_scale, "bias_scale")
    if scales.size not in (1, bias.size):
        raise OperandError(f"bias_scale: expected 1 or {bias.size} values, got {scales.size}")
    return bias / scales.reshape(-1)


# ---- kernels: compiled on the first use of their arguments ----


@functools.cache
def _quantize_kernel(dtype: str, key, axis: str) -> Prepared:
    return pointwise("quantizing", key, dtype=dtype, axis=axis)


@functools.cache
def _dequantize_kernel(dtype: str, key, axis: str) -> Prepared:
    return pointwise("dequantizing", key, dtype=dtype, axis=axis)


@functools.cache
def _quantize_back_kernel(dtype: str, key, axis: str) -> Prepared:
    return pointwise("quantizing_back", key, dtype=dtype, axis=axis)


@functools.cache
def _requantize_kernel(dtype: str, bias: str | None, rounding: str, key, axis: str) -> Prepared:
    if rounding == "fixed_point":
        return pointwise("requantizing_fixed", key, dtype=dtype, axis=axis, bias=bias is not None)
    return pointwise("requantizing", key, dtype=dtype, axis=axis, bias=bias)


@functools.cache
def _min_max_kernel(key) -> Prepared:
    target = resolve(key)

    def make():
        from lowgemm import schedules

        return schedules.schedule_min_max(target)

    return Prepared("min_max", {}, target, make)
