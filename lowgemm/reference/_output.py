"""The output stage of integer products: from the 32-bit accumulator to the stored element, step by step in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from lowgemm.errors import InputError
from lowgemm.quant import (
    FixedPoint,
    add_codes,
    fma,
    quantize_linear,
    requantize_fixed_point,
    to_bfloat16,
)
from lowgemm.reference._integer import each_column

CODES = ("uint8", "int8")
FLOATS = ("float32", "bfloat16")
ACTIVATIONS = (None, "relu", "relu6", "leaky_relu")


@dataclass(frozen=True)
class Residual:
    """What is added to an output.

    Attributes:
        value: codes (uint8 or int8) for an 8-bit output, float32 for a float one; the output's shape.
        factors: of `quant.sum_factors`, for an 8-bit output.
        low, high: the clamp of the sum's codes; None for the output type's range.
        first: whether `value` is the first operand of `quant.add_codes`, and the layer's code the second.
    """

    value: np.ndarray
    factors: tuple[np.float32, np.float32, np.float32] | None = None
    low: int | None = None
    high: int | None = None
    first: bool = False


def output_stage(
    acc: np.ndarray,
    *,
    dtype: str = "uint8",
    zero_point: int = 0,
    multiplier: ArrayLike = 1.0,
    fixed: FixedPoint | Sequence[FixedPoint] | None = None,
    row_scale: np.ndarray | None = None,
    lhs_zero_point: int | np.ndarray = 0,
    rhs_zero_point: int | np.ndarray = 0,
    row_sums: np.ndarray | None = None,
    column_offsets: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    bias_scale: ArrayLike | None = None,
    activation: str | None = None,
    alpha: float | None = None,
    out_scale: float | None = None,
    residual: Residual | None = None,
    table: np.ndarray | None = None,
    groups: int = 1,
) -> np.ndarray:
    """What a product stores for its accumulators, bit for bit. Each operation on reals is rounded to float32 once.

    1. Integers, modulo 2**32 (row i, column j, its group g):

        t = acc - lhs_zero_point[i] * column_offsets[j] - rhs_zero_point[j] * row_sums[i, g] + bias[j]  (int32 bias)

       An int32 output is t, with "relu" max(t, 0).

    2. Reals. For an 8-bit output, in its codes:

        y = float32(t) + bias[j] / bias_scale[j]        (float32 bias: a float32 quotient)
        y = y * multiplier[j]
        y = y * row_scale[i]
        y = y * alpha where y < 0                       ("leaky_relu")

       For a float output, in real units, where the last product and the first sum after it are one fused multiply-add,
       because compilers would fuse them as they please:

        y = float32(t) * multiplier[j] * row_scale[i] + bias[j] + residual      from left to right
        y = y * alpha where y < 0, max(y, 0), or min(max(y, 0), 6)              ("leaky_relu", "relu", "relu6")

       It is the result in float32; "bfloat16" rounds it once more, as `quant.to_bfloat16`.

    3. Codes: q = clamp(rint(y) + zero_point), ties to even, the zero point added after rounding. The clamp is the
       type's range; "relu" raises its low end to `zero_point`, and "relu6" besides lowers the high one to the code of
       6.0 (`quant.quantize_linear` with `out_scale`).
       With `fixed`, there are no reals: q = clamp((t * m[j] + 2**(s[j] - 1) >> s[j]) + zero_point) in 64 bits, ties up.

    4. A residual of an 8-bit output is added to q by the rule of `quant.add_codes`, with its own clamp. So there an
       activation comes before the sum, as the layer's own, and a ReLU after it is the sum's clamp.

    5. A table maps the code: table[q - least code of the type].

    FBGEMM's stages are cases of it: `ReQuantizeOutput` is steps 1 to 3, with "relu" and a bias of either type;
    `RequantizeFixedPoint` the other rounding; `ReQuantizeForFloat` a float32 output, where `multiplier` is the float32
    product of both scales (as its AVX2 code has it) and the sum with the bias is rounded once.

    Args:
        acc: int32 `(..., columns)`, the product of the codes as they are, or with the zero points taken off already.
        dtype: "uint8", "int8", "int32", "float32" or "bfloat16".
        zero_point: of an 8-bit output.
        multiplier: float32, for the tensor, every group or every column: lhs scale * rhs scale, over the output's scale
            for an 8-bit output.
        fixed: the same as one `FixedPoint`, or one for every column, of an 8-bit output: the other rounding policy.
        row_scale: float32 `(...)`, one for every row.
        lhs_zero_point: a scalar or `(...)`; other than 0, it needs `column_offsets`.
        rhs_zero_point: for the tensor, every group or every column; other than 0, it needs `row_sums`.
        row_sums: int32 `(..., groups)`, as `reference.row_sums` gives them.
        column_offsets: int32 `(columns,)`, as `reference.column_offsets` gives them for `rhs_zero_point`.
        bias: int32 `(columns,)` in units of the accumulator, or float32 `(columns,)` in real units.
        bias_scale: of a float32 bias of an 8-bit output: the real value of one unit of the accumulator (lhs scale * rhs
            scale; FBGEMM's `act_times_w_scale`), for the tensor, every group or every column.
        activation: None, "relu", "relu6" or "leaky_relu".
        alpha: the slope of "leaky_relu".
        out_scale: of an 8-bit output with "relu6".
        residual: what is added.
        table: 256 codes of type `dtype`, from that of the least code on.
        groups: number of groups of columns.

    Returns:
        `dtype`, the shape of `acc`; bfloat16 as its bits, uint16.

    Raises:
        InputError: parts that do not belong together.
    """
    _check(dtype, fixed, activation, alpha, out_scale, residual, table)
    each = partial(each_column, groups=groups, columns=acc.shape[-1], kind=np.float32)
    real_bias = None
    if bias is not None and bias.dtype.kind == "f":
        bias, real_bias = None, each("bias", bias)
    t = corrected(acc, lhs_zero_point, rhs_zero_point, row_sums, column_offsets, bias, groups)
    if dtype == "int32":
        return np.maximum(t, 0) if activation == "relu" else t

    if fixed is not None:
        if real_bias is not None or row_scale is not None or activation == "leaky_relu":
            raise InputError("a fixed-point multiplier has no float bias, row_scale or leaky_relu")
        low, high = _clamp(dtype, zero_point, activation, out_scale)
        codes = requantize_fixed_point(t, fixed, zero_point, dtype, lower=low, upper=high)
        return _finish(codes, residual, table)

    y, factor = t.astype(np.float32), each("multiplier", multiplier)
    if dtype in CODES and real_bias is not None:
        if bias_scale is None or row_scale is not None:
            raise InputError("a float bias of 8-bit outputs needs bias_scale, and has no row_scale")
        y = y + real_bias / each("bias_scale", bias_scale)
    with np.errstate(over="ignore"):  # what is infinite is clamped
        if row_scale is not None:
            y, factor = y * factor, np.asarray(row_scale, np.float32)[..., None]
        if dtype in FLOATS:
            y = _activate(_fused(y, factor, real_bias, residual), activation, alpha)
            return to_bfloat16(y) if dtype == "bfloat16" else y
        y = y * factor
        if activation == "leaky_relu":
            y = _activate(y, activation, alpha)
    # float64 adds the zero point without a second rounding.
    codes = np.rint(y).astype(np.float64) + zero_point
    codes = np.clip(codes, *_clamp(dtype, zero_point, activation, out_scale)).astype(dtype)
    return _finish(codes, residual, table)


def corrected(
    acc: np.ndarray,
    lhs_zero_point: int | np.ndarray,
    rhs_zero_point: int | np.ndarray,
    row_sums: np.ndarray | None,
    column_offsets: np.ndarray | None,
    bias: np.ndarray | None,
    groups: int = 1,
) -> np.ndarray:
    """Step 1 of `output_stage`, with its arguments: int32, the shape of `acc`."""
    columns = acc.shape[-1]
    total = acc.astype(np.int64)
    if np.any(lhs_zero_point):
        if column_offsets is None:
            raise InputError("lhs_zero_point is not 0, so column_offsets is needed")
        total -= np.asarray(lhs_zero_point, np.int64)[..., None] * column_offsets
    if np.any(rhs_zero_point):
        if row_sums is None:
            raise InputError("rhs_zero_point is not 0, so row_sums is needed")
        of_column = np.repeat(row_sums.astype(np.int64), columns // groups, axis=-1)
        total -= of_column * each_column(
            "rhs_zero_point", rhs_zero_point, groups, columns, np.int64
        )
    if bias is not None:
        total += each_column("bias", bias, groups, columns, np.int64)
    return total.astype(np.int32)


def requantize_transposed(
    acc: np.ndarray,
    scale: ArrayLike,
    out_scale: float,
    zero_point: int = 0,
    *,
    x_zero_point: int = 0,
    weight_zero_point: int | np.ndarray = 0,
    weight_offsets: np.ndarray | None = None,
    x_sums: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """The output stage of products with the weights on the left: FBGEMM's `trRequantizeRef`.

        t = acc - x_zero_point * weight_offsets[i] - weight_zero_point[i] * x_sums[j]       modulo 2**32
        y = (float32(t) + bias[i] / scale[i]) * scale[i] / out_scale                        each rounded to float32
        q = clamp(rint(y) + zero_point), ties to even, from `zero_point` up with `relu`

    Unlike in `output_stage` there is a product and a quotient, not one product with scale / out_scale.

    Args:
        acc: int32 `(outputs, columns)`, as `sparse_gemm_i32` gives it.
        scale: float32, x scale * weight scale: a scalar or `(outputs,)`.
        out_scale, zero_point: of the output.
        x_zero_point: of the activations; other than 0, it needs `weight_offsets`.
        weight_zero_point: a scalar or `(outputs,)`; other than 0, it needs `x_sums`.
        weight_offsets: int32 `(outputs,)`, the sum of each row of weights less its zero point times the depth.
        x_sums: int32 `(columns,)`, the sum of each column of activations.
        bias: float32 `(outputs,)`, in real units.

    Returns:
        uint8 `(outputs, columns)`.
    """
    sums = None if x_sums is None else x_sums[:, None]
    t = corrected(acc.T, x_zero_point, weight_zero_point, sums, weight_offsets, None).T
    factor = each_column("scale", scale, 1, acc.shape[0], np.float32)[:, None]
    y = t.astype(np.float32)
    if bias is not None:
        y = y + each_column("bias", bias, 1, acc.shape[0], np.float32)[:, None] / factor
    with np.errstate(over="ignore"):  # what is infinite is clamped
        y = y * factor / np.float32(out_scale)
    codes = np.rint(y).astype(np.float64) + zero_point
    return np.clip(codes, zero_point if relu else 0, 255).astype(np.uint8)


def _fused(y, factor, bias: np.ndarray | None, residual: Residual | None) -> np.ndarray:
    """y * factor + bias + residual, the first sum in one rounding with the product."""
    terms = [term for term in (bias, residual and residual.value) if term is not None]
    if not terms:
        return y * factor
    y = fma(y, factor, terms[0])
    return y + terms[1] if len(terms) > 1 else y


def _check(dtype, fixed, activation, alpha, out_scale, residual, table) -> None:
    if dtype not in (*CODES, *FLOATS, "int32"):
        raise InputError(f"dtype is {dtype!r}; expected uint8, int8, int32, float32 or bfloat16")
    if activation not in ACTIVATIONS:
        raise InputError(f"activation is {activation!r}; expected relu, relu6, leaky_relu or None")
    if fixed is not None and dtype not in CODES:
        raise InputError(f"fixed belongs to 8-bit outputs, and dtype is {dtype}")
    if (activation == "leaky_relu") != (alpha is not None):
        raise InputError("alpha belongs to leaky_relu, and to nothing else")
    if (activation == "relu6" and dtype in CODES) != (out_scale is not None):
        raise InputError("out_scale belongs to relu6 of an 8-bit output, and to nothing else")
    if dtype == "int32" and (activation not in (None, "relu") or residual is not None):
        raise InputError("an int32 output has no activation but relu, and no residual")
    if table is not None and (dtype not in CODES or table.dtype != dtype or table.shape != (256,)):
        raise InputError("table is 256 codes of the type of an 8-bit output")
    if residual is not None and (residual.factors is not None) != (dtype in CODES):
        raise InputError("a residual has factors if the output is 8-bit, and only then")


def _clamp(dtype, zero_point, activation, out_scale) -> tuple[int, int]:
    """The least and the greatest code of the layer."""
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if activation in ("relu", "relu6"):
        low = max(low, zero_point)
    if activation == "relu6":
        high = int(quantize_linear(np.array(6), np.float32(out_scale), zero_point, dtype))
    return low, high


def _activate(y: np.ndarray, activation: str | None, alpha: float | None) -> np.ndarray:
    if activation == "leaky_relu":
        return np.where(y < 0, y * np.float32(alpha), y)
    if activation is not None:
        y = np.maximum(y, np.float32(0))
    return np.minimum(y, np.float32(6)) if activation == "relu6" else y


def _finish(codes: np.ndarray, residual: Residual | None, table: np.ndarray | None) -> np.ndarray:
    """The residual and the table of an 8-bit output."""
    limits = np.iinfo(codes.dtype)
    if residual is not None and residual.factors is not None:
        low = limits.min if residual.low is None else residual.low
        high = limits.max if residual.high is None else residual.high
        pair = (residual.value, codes) if residual.first else (codes, residual.value)
        codes = add_codes(*pair, residual.factors, low, high, codes.dtype)
    return codes if table is None else table[codes.astype(np.int64) - limits.min]
