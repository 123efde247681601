"""Narrow float types, and transposition."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import OperandError, array, one_of
from lowgemm.ops._axis import WORK, pointwise
from lowgemm.ops._output import store_type
from lowgemm.ops._prepared import Prepared, bits_of, name_of, operand, resolve, result, target_key
from lowgemm.targets import CpuTarget

_FLOATS = tuple(map(np.dtype, ("float32", "float16", "uint16")))


def convert(
    x: Any,
    dtype: Literal["float32", "float16", "bfloat16"],
    *,
    rounding: Literal["rne", "half_up"] = "rne",
    clip: bool = False,
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """float32 as a narrow float type, or the other way: IEEE 754's rounding, `quant.to_bfloat16`, `quant.to_float16`.

    Args:
        x: float32, or float16 or bfloat16 (of ml_dtypes, or its bits as uint16), any shape.
        dtype: float16 or bfloat16 of float32, and float32 of the others.
        rounding: to bfloat16: "rne", ties to even, where a NaN becomes a quiet one; or "half_up", FBGEMM's
            FloatToBfloat16, ties away from zero. To float16 ties go to even.
        clip: to float16: +-65504 of larger numbers, instead of infinity.
        out: where to write, of the shape of `x`; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        `dtype`, the shape of `x`.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    x = operand(x, "x", _FLOATS, "bfloat16")
    one_of("dtype", dtype, ("float16", "bfloat16") if x.dtype == np.float32 else ("float32",))
    one_of("rounding", rounding, ("rne", "half_up"))
    if rounding == "half_up" and dtype != "bfloat16":
        raise OperandError(f'rounding: expected "rne" for {dtype}, got "half_up"')
    if clip and dtype != "float16":
        raise OperandError(f"clip: only for float16, not for {dtype}")
    out = result(out, x.shape, store_type(dtype), x)
    kernel = _convert_kernel(
        name_of(x.dtype), dtype, rounding == "half_up", clip, target_key(target)
    )
    kernel(x.size * WORK, bits_of(x).reshape(-1), bits_of(out).reshape(-1))
    return out


def transpose(x: Any, *, out: Any = None, target: str | CpuTarget = "host") -> np.ndarray:
    """The transpose of a matrix of 8, 16 or 32-bit elements, as a matrix in memory: FBGEMM's transpose_simd.

    Args:
        x: `(rows, columns)` of any type of 1, 2 or 4 bytes.
        out: where to write, `(columns, rows)`; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        `(columns, rows)` of the type of `x`.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    x = array(x, "x", np.inf)
    x = operand(x, "x", (x.dtype,))
    if x.ndim != 2 or x.itemsize not in (1, 2, 4):
        raise OperandError(
            f"x: expected 8, 16 or 32-bit elements of shape (rows, columns), got {x.dtype.name} of shape {x.shape}"
        )
    out = result(out, x.shape[::-1], x.dtype, x)
    unsigned = np.dtype(f"uint{8 * x.itemsize}")
    kernel = _transpose_kernel(8 * x.itemsize, target_key(target))
    kernel(x.nbytes * WORK, x.view(unsigned), out.view(unsigned))
    return out


@functools.cache
def _convert_kernel(source: str, dtype: str, half_up: bool, clip: bool, key) -> Prepared:
    return pointwise("converting", key, source=source, result=dtype, half_up=half_up, clip=clip)


@functools.cache
def _transpose_kernel(bits: int, key) -> Prepared:
    target = resolve(key)

    def make():
        from lowgemm import schedules

        return schedules.schedule_transpose(bits, target)

    return Prepared("transpose", {"bits": bits}, target, make)
