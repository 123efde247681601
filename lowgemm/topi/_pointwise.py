"""Operators that take each element by itself: codes, real numbers and the narrow float types, one from another.

Each is a value: the dtypes, the parameters and the expression of one element, or of a vector of them. Sizes and loops
are the schedule's (`schedules.schedule_pointwise`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from lowgemm.topi import _epilogue, _narrow
from lowgemm.topi._arith import (
    f32,
    like,
    round_clamped,
    to_float,
    wrapping_sum,
)


@dataclass(frozen=True)
class Param:
    """A parameter beside the elements: one for all of them (`axis` is "all"), or one for every "row" or "column"."""

    name: str
    dtype: str
    axis: str


@dataclass(frozen=True)
class Pointwise:
    """dst[i] = value(src[i], *params): `value` gets vectors, or scalars, and gives as many lanes.

    bfloat16 stands in memory as uint16.
    """

    source: str
    result: str
    params: tuple[Param, ...]
    value: Callable[..., Any]


def quantizing(dtype: str, axis: str) -> Pointwise:
    """q = clamp(rint(x * inverse) + zero_point), ties to even: `quant.quantize_reciprocal`, inverse = 1 / scale."""

    def value(x, inverse, zero_point):
        # The second operand is taken of a NaN.
        return _epilogue.saturating_code(
            tirx.min(f32(_epilogue.FAR), x * inverse), zero_point, dtype
        )

    return Pointwise("float32", dtype, _floats(axis, "inverse", "zero_point"), value)


def dequantizing(dtype: str, axis: str) -> Pointwise:
    """x = (q - zero_point) * scale, the difference exact: `quant.dequantize_linear`."""

    def value(q, scale, zero_point):
        return (to_float(q) - zero_point) * scale

    return Pointwise(dtype, "float32", _floats(axis, "scale", "zero_point"), value)


def quantizing_back(dtype: str, axis: str) -> Pointwise:
    """What `dequantizing` makes of `quantizing`: `quant.quantize_dequantize`."""
    low, high = _limits(dtype)

    def value(x, inverse, scale, zero_point):
        steps = round_clamped(x * inverse, f32(low) - zero_point, f32(high) - zero_point, f32(0.0))
        return steps * scale

    names = ("inverse", "scale", "zero_point")
    return Pointwise("float32", "float32", _floats(axis, *names), value)


def requantizing(dtype: str, axis: str, bias: str | None) -> Pointwise:
    """q = clamp(rint(float32(acc) * multiplier) + zero_point, low, high), ties to even.

    `axis` is the multiplier's. A `bias` has one value a column: "int32" is added to the accumulator, modulo 2^32,
    "float32" to the accumulator as a float.
    """

    def value(acc, multiplier, *rest):
        if bias == "int32":
            real = to_float(wrapping_sum(acc, rest[0]))
        elif bias == "float32":
            real = to_float(acc) + rest[0]
        else:
            real = to_float(acc)
        code = _epilogue.quantized_from(real * multiplier, *rest[-3:])
        return code.astype(like(dtype, acc))

    params = [Param("multiplier", "float32", axis)]
    if bias:
        params.append(Param("bias", bias, "column"))
    params += _floats("all", "zero_point", "low", "high")
    return Pointwise("int32", dtype, tuple(params), value)


def requantizing_fixed(dtype: str, axis: str, bias: bool) -> Pointwise:
    """q = clamp(((acc * multiplier + 2^(shift - 1)) >> shift) + zero_point, low, high), in 64 bits: ties go up.

    `multiplier` is below 2^31 and `shift` in 1..62, both of `axis`; a bias, int32, has one value a column.
    """

    def value(acc, multiplier, shift, *rest):
        total = wrapping_sum(acc, rest[0]) if bias else acc
        wide = like("int64", acc)
        one = tirx.const(1, "int64")
        shift = shift.astype(like("int64", shift))
        product = total.astype(wide) * multiplier.astype(like("int64", multiplier))
        shifted = (product + (one << (shift - one))) >> shift
        # Products of 31 bits fit in 32 once clamped; clamping first keeps the sum within them.
        zero_point, low, high = (p.astype("int64") for p in rest[-3:])
        code = tirx.min(tirx.max(shifted, low - zero_point), high - zero_point) + zero_point
        return code.astype(like(dtype, acc))

    params = [Param("multiplier", "int32", axis), Param("shift", "int32", axis)]
    if bias:
        params.append(Param("bias", "int32", "column"))
    params += [Param(name, "int32", "all") for name in ("zero_point", "low", "high")]
    return Pointwise("int32", dtype, tuple(params), value)


def converting(source: str, result: str, half_up: bool = False, clip: bool = False) -> Pointwise:
    """Between float32 and a narrow float type, rounded as `narrowed` has it."""
    if source == "float32":

        def value(x):
            return _narrow.narrowed(x, result, half_up, clip)

        return Pointwise(source, _narrow.stored(result), (), value)
    return Pointwise(_narrow.stored(source), result, (), lambda x: _narrow.widened(x, source))


def _floats(axis: str, *names: str) -> tuple[Param, ...]:
    return tuple(Param(name, "float32", axis) for name in names)


def _limits(dtype: str) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)
