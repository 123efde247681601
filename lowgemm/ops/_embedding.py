"""Embedding bags: sums of rows of a table that lists of indices name."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import OperandError, one_of
from lowgemm.ops._output import store_type
from lowgemm.ops._prepared import Prepared, bits_of, name_of, operand, resolve, result, target_key
from lowgemm.ops._rows import FLOATS, row_params
from lowgemm.targets import CpuTarget

_INTEGERS = (np.dtype(np.int64), np.dtype(np.int32))
_INT32 = (np.dtype(np.int32),)
_FLOAT32 = (np.dtype(np.float32),)
_TABLES = tuple(map(np.dtype, (np.uint8, np.float32, np.float16, np.uint16)))
# An element of a row takes as long as some 30 multiply-accumulates of a matrix product.
_WORK = 30


def embedding_bag(
    table: Any,
    indices: Any,
    *,
    offsets: Any = None,
    lengths: Any = None,
    weights: Any = None,
    positional: bool = False,
    mean: bool = False,
    remap: Any = None,
    bits: Literal[8, 4, 2] = 8,
    params: Literal["float32", "float16"] | None = None,
    scale_bias_last: bool = True,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    bfloat16_rounding: Literal["rne", "half_up"] = "rne",
    out: Any = None,
    target: str | CpuTarget = "host",
) -> np.ndarray:
    """The sum of the table's rows that the indices of each bag name: FBGEMM's EmbeddingSpMDM and its variants.

    Sums are float32, in the order of the indices: sum = fma(weight, row, sum) of float rows and
    sum = fma(weight * scale, code, sum + weight * bias) of codes, as `reference.embedding_bag` has it bit for bit. Of
    an empty bag the sum is 0. The kernel is compiled for the number of columns; other sizes may change from call to
    call. Bags are shared among threads.

    Args:
        table: float32, float16 or bfloat16 (of ml_dtypes, or its bits as uint16) `(rows, columns)`; or rows of codes,
            uint8 `(rows, bytes)`, as of `quantize_rows`.
        indices: int32 or int64 `(count,)`, those of all bags one after the other.
        offsets: int32 or int64 `(bags + 1,)`: where each bag begins, from 0 on, and last the end, `count`.
        lengths: int32 or int64 `(bags,)`, instead of offsets. Without both, every index is a bag.
        weights: float32, one for every index; if `positional`, one for every place in a bag, at least as many as the
            longest bag has.
        positional: what weights belong to.
        mean: divide by the number of indices of the bag, the pruned ones too.
        remap: int32 `(original rows,)`: the table's row that an index stands for, or -1 for a pruned row, which adds
            nothing.
        bits, params, scale_bias_last: of rows of codes. params: the type of scale and bias, by default float32 beside 8
            bits and float16 beside 4 and 2.
        dtype: of the result, rounded to nearest, ties to even.
        bfloat16_rounding: of a bfloat16 result; "half_up", FBGEMM's, rounds ties away from zero.
        out: where to write, `(bags, columns)`; else a new array.
        target: an instruction-set level, or "host".

    Returns:
        `(bags, columns)` of `dtype`.

    Raises:
        OperandError: naming the argument, what was expected and what came; an index or a row out of range with its
            position. `out` may then be partly written.
    """
    table = operand(table, "table", _TABLES, "bfloat16")
    if table.ndim != 2:
        raise OperandError(f"table: expected shape (rows, columns), got shape {table.shape}")
    indices = _vector(indices, "indices", _INTEGERS)
    starts = _starts(indices.size, offsets, lengths)
    bags = indices.size if starts is None else starts.size - 1
    if remap is not None:
        remap = _vector(remap, "remap", _INT32)
    if positional and weights is None:
        raise OperandError("positional: expected weights that it says something of")
    if weights is not None:
        weights = _vector(weights, "weights", _FLOAT32)
        if not positional and weights.size != indices.size:
            raise OperandError(
                f"weights: expected one for each of {indices.size} indices, got {weights.size}"
            )
    variant = _variant(
        table.dtype,
        table.shape[1],
        (bits, params, scale_bias_last),
        (dtype, bfloat16_rounding),
        indices.dtype,
        None if starts is None else starts.dtype,
        None if weights is None else "position" if positional else "index",
        mean,
        remap is not None,
        target_key(target),
    )
    lists = [v for v in (remap, indices, starts, weights) if v is not None]
    out = result(out, (bags, variant.columns), variant.dtype, table, *lists)
    status = np.zeros(1, np.int32)
    if remap is None or remap.size or not indices.size:
        work = indices.size * variant.columns * _WORK
        variant.kernel(work, bits_of(table), *lists, bits_of(out), status)
    else:
        status[0] = 1
    if status[0]:
        name = "lengths" if offsets is None else "offsets"
        raise _reason(table.shape[0], indices, starts, name, remap, weights, positional)
    return out


def _vector(value: Any, name: str, dtypes: tuple[np.dtype, ...]) -> np.ndarray:
    found = operand(value, name, dtypes)
    if found.ndim != 1:
        raise OperandError(f"{name}: expected one axis, got shape {found.shape}")
    return found


def _starts(count: int, offsets: Any, lengths: Any) -> np.ndarray | None:
    """Offsets, or None if every index is a bag."""
    if offsets is not None and lengths is not None:
        raise OperandError("offsets, lengths: expected one of them")
    if offsets is not None:
        starts = _vector(offsets, "offsets", _INTEGERS)
        if not starts.size:
            raise OperandError(f"offsets: expected bags + 1 of them, from 0 to {count}, got none")
        return starts
    if lengths is None:
        return None
    counts = _vector(lengths, "lengths", _INTEGERS)
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _reason(
    rows: int,
    indices: np.ndarray,
    starts: np.ndarray | None,
    name: str,
    remap: np.ndarray | None,
    weights: np.ndarray | None,
    positional: bool,
) -> OperandError:
    """Why a kernel refused its arguments."""
    if starts is not None:
        steps = np.diff(starts.astype(np.int64))
        if (steps < 0).any():
            bag = int(np.flatnonzero(steps < 0)[0])
            return OperandError(
                f"{name}: expected no negative lengths, got {steps[bag]} of bag {bag}"
            )
        if starts[0] != 0 or starts[-1] != indices.size:
            return OperandError(
                f"{name}: expected to cover indices 0 to {indices.size}, got {starts[0]} to {starts[-1]}"
            )
        longest = int(steps.max(initial=0))
        if longest > indices.size:  # lengths whose sum wraps
            bag = int(steps.argmax())
            return OperandError(
                f"{name}: expected at most {indices.size} of a bag, got {longest} of bag {bag}"
            )
        if positional and weights is not None and weights.size < longest:
            return OperandError(
                f"weights: expected one for each of {longest} places, got {weights.size}"
            )
    limit = rows if remap is None else remap.size
    bad = np.flatnonzero((indices < 0) | (indices >= limit))
    if bad.size:
        at = int(bad[0])
        return OperandError(
            f"indices: expected 0 to {limit - 1}, got {indices[at]} at position {at}"
        )
    assert remap is not None
    found = remap[indices]
    at = int(np.flatnonzero((found < -1) | (found >= rows))[0])
    return OperandError(
        f"remap: expected -1 to {rows - 1}, got {found[at]} for index {indices[at]} at position {at}"
    )


@dataclass(frozen=True)
class _Variant:
    """What dtypes and options decide."""

    kernel: Prepared
    columns: int
    dtype: np.dtype


@functools.cache
def _variant(
    table: np.dtype,
    width: int,
    form: tuple[int, str | None, bool],
    rounded: tuple[str, str],
    indices: np.dtype,
    offsets: np.dtype | None,
    weights: str | None,
    mean: bool,
    pruned: bool,
    key,
) -> _Variant:
    """The kernel for a table with rows of `width` elements.

    Args:
        form: bits, params and scale_bias_last, of rows of codes.
        rounded: dtype and bfloat16_rounding of the result.

    Raises:
        OperandError: there is no such form, or no such result.
    """
    dtype, rounding = rounded
    one_of("dtype", dtype, FLOATS)
    one_of("bfloat16_rounding", rounding, ("rne", "half_up"))
    kind: str | tuple[int, str, bool] = name_of(table)
    columns = width
    if table == np.uint8:
        bits, params, last = form
        params = params or ("float32" if bits == 8 else "float16")
        kind, size = (bits, params, last), row_params(bits, params)
        columns = (width - size) * (8 // bits)
        if columns <= 0:
            raise OperandError(f"table: expected rows of more than {size} bytes, got {width}")
    if columns == 0:
        raise OperandError("table: expected rows with elements, got none")
    target = resolve(key)
    fields = {
        "columns": columns,
        "result": dtype,
        "indices": name_of(indices),
        "offsets": None if offsets is None else name_of(offsets),
        "weights": weights,
        "mean": bool(mean),
        "pruned": pruned,
        "half_up": dtype == "bfloat16" and rounding == "half_up",
    }

    def make():
        from lowgemm import schedules, topi

        row = kind if isinstance(kind, str) else topi.RowFormat(*kind)
        return schedules.schedule_bags(topi.BagForm(table=row, **fields), target)

    kernel = Prepared("embedding_bag", {"table": kind, **fields}, target, make)
    return _Variant(kernel, columns, store_type(dtype))
