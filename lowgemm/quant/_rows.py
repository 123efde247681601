"""Rows of 8, 4 or 2-bit codes, each with its own scale and bias beside it: FBGEMM's formats for embedding tables.

    element = scale * code + bias         bias is the least element of the row

A row is bytes: the codes, 8 / bits of them in a byte with the first one in its lowest bits, then scale and bias
(`scale_bias_last`), or scale and bias first. They are little-endian, float32 beside 8 bits ("SBFloat") or float16
beside 8, 4 and 2 ("SBHalf").
"""

import numpy as np

from lowgemm.errors import InputError
from lowgemm.quant._fma import fma
from lowgemm.quant._half import to_bfloat16, to_float16

_EPSILON = np.float32(1e-8)  # keeps FBGEMM's reciprocal of an empty range finite


def quantize_rows(
    x: np.ndarray, bits: int = 8, params: str = "float32", min_max: np.ndarray | None = None
) -> np.ndarray:
    """Quantize every row by its own range; all steps in float32.

    float32 parameters: scale = (high - low) / 255, bias = low, code = rint((x - low) * (255 / (high - low + 1e-8))).
    FBGEMM's FloatOrHalfToFused8BitRowwiseQuantizedSBFloat.

    float16 parameters: low is rounded to float16 first, scale = float16((high - low) / (2**bits - 1)), or 1 where that
    is 0, code = rint((x - low) * (1 / scale)). FBGEMM's FloatOrHalfToFusedNBitRowwiseQuantizedSBHalf.

    Codes round ties to even and are clamped. (With float32 parameters FBGEMM's vectors clamp, its scalar code cuts bits
    off. It shows only with a `min_max` that is not the row's.)

    Args:
        x: float32 or float16 `(rows, columns)`, finite; with float16 parameters within that type's range. Columns fill
            whole bytes.
        bits: 8, 4 or 2.
        params: "float32" (8 bits only) or "float16".
        min_max: `(rows, 2)` of the type of `x`, the range of every row; None to find it.

    Returns:
        uint8 `(rows, columns * bits / 8 + 8 or 4)`, scale and bias last.
    """
    size = _param_bytes(bits, params)
    if params == "float32" and bits != 8:
        raise InputError(f"bits is {bits}; expected 8 beside float32 parameters")
    if x.ndim != 2 or x.shape[1] == 0 or x.shape[1] % (8 // bits):
        raise InputError(f"x is {x.shape}; expected (rows, a multiple of {8 // bits})")
    values = x.astype(np.float32)
    ends = (values.min(axis=1), values.max(axis=1)) if min_max is None else min_max.T
    low, high = (end.astype(np.float32)[:, None] for end in ends)
    top = np.float32(2**bits - 1)
    if params == "float16":
        low = to_float16(low).astype(np.float32)
        scale = to_float16(np.where(high == low, np.float32(1), (high - low) / top))
        scale = np.where(scale == 0, np.float16(1), scale).astype(np.float32)
        inverse = np.float32(1) / scale
    else:
        scale = (high - low) / top
        inverse = top / (high - low + _EPSILON)
    codes = np.clip(np.rint((values - low) * inverse), 0, top).astype(np.uint8)
    fields = np.concatenate([scale, low], axis=1).astype(f"<f{size // 2}")
    return np.concatenate([_pack(codes, bits), fields.view(np.uint8)], axis=1)


def unpack_rows(
    rows: np.ndarray, bits: int = 8, params: str = "float32", scale_bias_last: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and biases of `quantize_rows`.

    Args:
        rows: uint8 `(rows, bytes)`.
        bits, params: as of `quantize_rows`; 8 bits may have either.
        scale_bias_last: whether scale and bias stand behind the codes.

    Returns:
        uint8 `(rows, columns)`, float32 `(rows,)`, float32 `(rows,)`.
    """
    size = _param_bytes(bits, params)
    if rows.ndim != 2 or rows.dtype != np.uint8 or rows.shape[1] < size:
        raise InputError(f"rows is {rows.dtype}{rows.shape}; expected uint8 (rows, {size} or more)")
    packed, fields = (
        (rows[:, :-size], rows[:, -size:]) if scale_bias_last else (rows[:, size:], rows[:, :size])
    )
    pair = np.ascontiguousarray(fields).view(f"<f{size // 2}").astype(np.float32)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[:, :, None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(rows.shape[0], -1), pair[:, 0], pair[:, 1]


def dequantize_rows(
    rows: np.ndarray,
    bits: int = 8,
    params: str = "float32",
    dtype: str = "float32",
    scale_bias_last: bool = True,
) -> np.ndarray:
    """fma(scale, code, bias), rounded to float32 once, then to `dtype`, ties to even.

    FBGEMM's Fused8BitRowwiseQuantizedSBFloatToFloatOrHalf and FusedNBitRowwiseQuantizedSBHalfToFloatOrHalf, whose
    vectors use FMA (its scalar code sums in float64, which next to ties can differ in the last bit) and whose bfloat16
    rounds ties up or to even, as the CPU has it.

    Args:
        rows, bits, params, scale_bias_last: as of `unpack_rows`.
        dtype: "float32", "float16" or "bfloat16".

    Returns:
        `(rows, columns)` of `dtype`; bfloat16 as its bits, uint16.
    """
    if dtype not in ("float32", "float16", "bfloat16"):
        raise InputError(f"dtype is {dtype!r}; expected float32, float16 or bfloat16")
    codes, scale, bias = unpack_rows(rows, bits, params, scale_bias_last)
    real = fma(codes, scale[:, None], bias[:, None])
    return {"float16": to_float16, "bfloat16": to_bfloat16}.get(dtype, np.asarray)(real)


def _param_bytes(bits: int, params: str) -> int:
    """Bytes of scale and bias together."""
    if bits not in (2, 4, 8):
        raise InputError(f"bits is {bits}; expected 2, 4 or 8")
    if params not in ("float32", "float16"):
        raise InputError(f"params is {params!r}; expected 'float32' or 'float16'")
    return 8 if params == "float32" else 4


def _pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes `(rows, columns)` as bytes, the first code of a byte in its lowest bits."""
    fields = codes.reshape(codes.shape[0], -1, 8 // bits)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(fields << shifts, axis=2)
