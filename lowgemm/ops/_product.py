"""What integer products with packed weights have in common: their options, and what is held for each column."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import OperandError, aligned, integer, one_of, one_scale
from lowgemm.ops._output import EIGHT_BIT, Output
from lowgemm.packing import ConvPacking
from lowgemm.targets import CpuTarget

# Bytes of the left operand and the output that a thread takes at a time, so that they stay in its second cache.
BLOCK_BYTES = 192 * 1024


@dataclass(frozen=True)
class Quantize:
    """That the left matrix is float32 and is quantized to uint8 while it is packed.

    `range` says where scale and zero point come from: "static", from here; "tensor" or "row", from the least and the
    greatest element of each call's matrix, or of each of its rows (in groups: of each group's part of a row), by
    `quant.choose_qparams`. The code of x is clamp(rint(x * (1 / scale)) + zero_point), ties to even, FBGEMM's rule. The
    scales that "tensor" and "row" find multiply the real output, whose multiplier is then that of the weight alone.

    Elements are finite: "tensor" refuses others; what "row" makes of a row that has some has no meaning, and other rows
    are as ever; by "static" a NaN has the code 0.

    Args:
        range: where scale and zero point come from.
        scale: for "static": the real value of a step, above zero and with a finite float32 reciprocal.
        zero_point: for "static": the code of 0, 0 to 255.
    """

    range: Literal["static", "tensor", "row"] = "static"
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class ProductOptions:
    """What all parts of a product have in common."""

    depth: int
    columns: int
    in_dtype: str
    quantize: Quantize | None
    row_zero: str  # "", "given" or "found"
    weight_zero: bool
    batched: bool
    packing: ConvPacking
    output: Output
    target: CpuTarget

    def with_output(self, output: Output) -> ProductOptions:
        return checked_options(**{**self.__dict__, "output": output})

    def output_form(self) -> dict[str, Any]:
        form = self.output.form(self.weight_zero, bool(self.row_zero))
        dynamic = self.quantize is not None and self.quantize.range != "static"
        return {**form, "row_scale": form["row_scale"] or dynamic}


@dataclass(frozen=True)
class ProductPart:
    """One group, or one matrix of a batch: the packed weight and what is held for each of its columns.

    `places` say where its words lie, if they are summed in pairs (`ConvPacking.pair`).
    """

    packed: np.ndarray
    sums: np.ndarray
    zeros: np.ndarray
    zero_point: int
    slot: tuple[int, int]
    arrays: dict[str, np.ndarray]
    places: np.ndarray | None = None

    def with_output(self, options: ProductOptions) -> ProductPart:
        arrays = column_arrays(options, self.sums, self.zeros, self.zero_point, self.slot)
        return replace(self, arrays=arrays)


def right_matrices(b: np.ndarray, groups: int, transposed: bool) -> list[np.ndarray]:
    """The right matrices `(depth, columns)` of all groups, or, if `b` has three axes, of all of a batch.

    Raises:
        OperandError: `b` is empty or of another number of axes, or the groups do not divide it.
    """
    if b.ndim not in (2, 3):
        raise OperandError(f"b: expected 2 axes, or 3 for a batch, got shape {b.shape}")
    groups = integer(groups, "groups", 1)
    if b.ndim == 3 and groups > 1:
        raise OperandError("groups: a batch of right matrices takes none")
    if b.size == 0:
        raise OperandError(f"b: expected at least one row and one column, got shape {b.shape}")
    stack = np.swapaxes(b, -1, -2) if transposed else b
    if b.ndim == 3:
        return list(stack)
    # (groups * depth, columns), or, transposed and turned, (depth, groups * columns).
    axis = 1 if transposed else 0
    if stack.shape[axis] % groups:
        raise OperandError(f"groups: {groups} do not divide b of shape {b.shape}")
    return np.split(stack, groups, axis)


def left_zero_point(
    a_dtype: str, zero_point: Any, quantize: Quantize | None
) -> tuple[str, int | None]:
    """Where rows have zero points of their own from ("", "given" or "found"), and else the one of all."""
    low = 0 if a_dtype == "uint8" else -128
    if quantize is None:
        if isinstance(zero_point, str) and zero_point == "row":
            return "given", None
        return "", integer(zero_point, "a_zero_point", low, low + 255)
    if a_dtype != "uint8" or not isinstance(zero_point, int) or zero_point != 0:
        raise OperandError("a_dtype, a_zero_point: with quantize they are uint8 and quantize's own")
    one_of("quantize.range", quantize.range, ("static", "tensor", "row"))
    if quantize.range != "static":
        return "found", None
    scale = one_scale(quantize.scale, "quantize.scale")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(1) / scale):
            raise OperandError(f"quantize.scale: its reciprocal is not finite: {scale}")
    return "", integer(quantize.zero_point, "quantize.zero_point", 0, 255)


def checked_options(**fields) -> ProductOptions:
    options = ProductOptions(**fields)
    output = options.output
    if options.quantize is None or options.quantize.range == "static":
        return options
    if output.dtype == "int32" or output.rounding == "fixed_point":
        raise OperandError("quantize: a range found at run time needs a real output stage")
    if output.row_scale:
        raise OperandError("output.row_scale: a range found at run time is the row's scale")
    if output.dtype in EIGHT_BIT and output.bias is not None and output.bias.dtype == np.float32:
        raise OperandError("output.bias: expected int32 where rows have scales of their own")
    return options


def weight_zeros(zero_point, dtype: np.dtype, columns: int, parts: int) -> np.ndarray:
    """Zero points `(parts, columns)` int64 of the weight as int8."""
    values = np.asarray(zero_point)
    if values.dtype.kind not in "iu":
        raise OperandError(f"b_zero_point: expected integers, got {values.dtype.name}")
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise OperandError(
            f"b_zero_point: expected {limits.min} to {limits.max}, got {values.tolist()}"
        )
    flat = values.astype(np.int64).reshape(-1)
    if flat.size == 1:
        full = np.broadcast_to(flat, (parts, columns))
    elif flat.size == parts * columns:
        full = flat.reshape(parts, columns)
    elif flat.size == parts:
        full = np.broadcast_to(flat[:, None], (parts, columns))
    else:
        raise OperandError(
            f"b_zero_point: expected 1, {parts} or {parts * columns} values, got {flat.size}"
        )
    return full - (128 if dtype == np.uint8 else 0)


def check_depth(depth: int, a_dtype: str, a_zero_point: int | None, zeros: np.ndarray) -> None:
    """Refuse a depth at which the exact sum of some left matrix would not fit 32 bits."""
    low, high = (0, 255) if a_dtype == "uint8" else (-128, 127)
    most = 255 if a_zero_point is None else max(high - a_zero_point, a_zero_point - low)
    weight = max(127 - int(zeros.min()), int(zeros.max()) + 128)
    limit = (2**31 - 1) // (most * weight)
    if depth > limit:
        raise OperandError(f"b: depth {depth} is too large for exact 32-bit sums; at most {limit}")


def column_arrays(
    options: ProductOptions, sums: np.ndarray, zeros: np.ndarray, point: int, slot: tuple[int, int]
) -> dict[str, np.ndarray]:
    """What a part's kernel takes for each column, padded to whole tiles."""
    number, groups = slot
    own = slice(number * options.columns, (number + 1) * options.columns)
    output = options.output
    column_sum = sums - options.depth * zeros
    offset = output.integer_bias(options.columns * groups)[own] - point * column_sum
    found = {"offset": offset, "weight_zero": zeros, "column_sum": column_sum}
    found = {name: value.astype(np.int32) for name, value in found.items()}
    each = output.columns(options.columns * groups, groups)
    found.update((name, value[own]) for name, value in each.items())
    padded = {name: options.packing.pad_channels(_fill(options, v)) for name, v in found.items()}
    padded["out"] = output.params()
    if output.residual and output.dtype in EIGHT_BIT:
        padded["add"] = output.sum_params()
    if output.table is not None:
        padded["table"] = output.table
    return padded


def _fill(options: ProductOptions, values: np.ndarray) -> np.ndarray:
    full = np.zeros(options.packing.group_out, values.dtype)
    full[: options.columns] = values
    return full


def packed_columns(packing: ConvPacking, w: np.ndarray) -> np.ndarray:
    """The packed weight at the beginning of a cache line."""
    depth, columns = w.shape
    full = np.zeros((packing.group_out, depth, 1, 1), np.int8)
    full[:columns, :, 0, 0] = w.T
    return aligned(packing.pack(full))
