"""Rows of codes, each with its own scale and bias."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import OperandError, one_of
from lowgemm.ops._axis import WORK
from lowgemm.ops._output import store_type
from lowgemm.ops._prepared import Prepared, bits_of, name_of, operand, resolve, result, target_key
from lowgemm.targets import CpuTarget

FLOATS = ("float32", "float16", "bfloat16")
_UINT8 = (np.dtype(np.uint8),)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))


def quantize_rows(
    x: Any,
    bits: Literal[8, 4, 2] = 8,
    params: Literal["float32", "float16"] = "float32",
    *,
    min_max: Any = None,
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """Quantize every row by its own range, with scale and bias behind the codes: `quant.quantize_rows`.

    float32 parameters, beside 8 bits, are FBGEMM's FloatOrHalfToFused8BitRowwiseQuantizedSBFloat; float16 ones its
    FloatOrHalfToFusedNBitRowwiseQuantizedSBHalf.

    Args:
        x: float32 or float16 `(rows, columns)`, finite. Columns fill whole bytes.
        bits: of a code.
        params: the type of scale and bias.
        min_max: `(rows, 2)` of the type of `x`, the range of every row; else it is found.
        out: where to write; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        uint8 `(rows, columns * bits / 8 + 8 or 4)`: the codes, the first one in the lowest bits, scale, bias.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    x = operand(x, "x", _FLOATS)
    size = row_params(bits, params)
    if params == "float32" and bits != 8:
        raise OperandError(f"params: expected float16 beside {bits} bits, got float32")
    per_byte = 8 // bits
    if x.ndim != 2 or x.shape[1] == 0 or x.shape[1] % per_byte:
        raise OperandError(
            f"x: expected shape (rows, a multiple of {per_byte}), got shape {x.shape}"
        )
    known: tuple[np.ndarray, ...] = ()
    if min_max is not None:
        ends = operand(min_max, "min_max", (x.dtype,))
        if ends.shape != (x.shape[0], 2):
            raise OperandError(f"min_max: expected shape ({x.shape[0]}, 2), got shape {ends.shape}")
        known = (ends,)
    shape = (x.shape[0], x.shape[1] // per_byte + size)
    out = result(out, shape, np.dtype(np.uint8), x, *known)
    kernel = _quantize_rows_kernel(bits, params, name_of(x.dtype), bool(known), target_key(target))
    kernel(2 * x.size * WORK, x, *known, out)
    return out


def dequantize_rows(
    rows: Any,
    bits: Literal[8, 4, 2] = 8,
    params: Literal["float32", "float16"] = "float32",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    *,
    scale_bias_last: bool = True,
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """The elements of rows of codes, fma(code, scale, bias) rounded to `dtype`: `quant.dequantize_rows`.

    FBGEMM's Fused8BitRowwiseQuantizedSBFloatToFloatOrHalf and FusedNBitRowwiseQuantizedSBHalfToFloatOrHalf.

    Args:
        rows: uint8 `(rows, bytes)`, as of `quantize_rows`.
        bits, params: as of `quantize_rows`.
        dtype: of the result; ties go to even.
        scale_bias_last: whether scale and bias stand behind the codes, not in front of them.
        out: where to write; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        `(rows, columns)` of `dtype`.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    rows = operand(rows, "rows", _UINT8)
    size = row_params(bits, params)
    one_of("dtype", dtype, FLOATS)
    if rows.ndim != 2 or rows.shape[1] < size:
        raise OperandError(
            f"rows: expected shape (rows, {size} or more bytes), got shape {rows.shape}"
        )
    shape = (rows.shape[0], (rows.shape[1] - size) * (8 // bits))
    out = result(out, shape, store_type(dtype), rows)
    key = target_key(target)
    kernel = _dequantize_rows_kernel(bits, params, scale_bias_last, dtype, key)
    kernel(out.size * WORK, rows, bits_of(out))
    return out


def row_params(bits: int, params: str) -> int:
    """Bytes of scale and bias of a row.

    Raises:
        OperandError: there is no such format.
    """
    one_of("bits", bits, (8, 4, 2))
    one_of("params", params, ("float32", "float16"))
    return 8 if params == "float32" else 4


@functools.cache
def _quantize_rows_kernel(bits: int, params: str, source: str, ranged: bool, key) -> Prepared:
    target = resolve(key)

    def make():
        from lowgemm import schedules, topi

        form = topi.RowFormat(bits, params)
        return schedules.schedule_quantize_rows(form, source, ranged, target)

    identity = {"bits": bits, "params": params, "source": source, "ranged": ranged}
    return Prepared("quantize_rows", identity, target, make)


@functools.cache
def _dequantize_rows_kernel(bits: int, params: str, last: bool, dtype: str, key) -> Prepared:
    target = resolve(key)

    def make():
        from lowgemm import schedules, topi

        form = topi.RowFormat(bits, params, last)
        return schedules.schedule_dequantize_rows(form, dtype, target)

    identity = {"bits": bits, "params": params, "last": last, "dtype": dtype}
    return Prepared("dequantize_rows", identity, target, make)
