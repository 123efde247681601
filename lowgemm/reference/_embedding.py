"""Embedding bags: sums of rows of a table, in float32 and in the order of the indices, so that they compare exactly."""

import numpy as np

from lowgemm.errors import InputError
from lowgemm.quant import fma, from_bfloat16, to_bfloat16, to_float16, unpack_rows


def embedding_bag(
    table: np.ndarray,
    indices: np.ndarray,
    *,
    offsets: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    positional: bool = False,
    mean: bool = False,
    remap: np.ndarray | None = None,
    bits: int = 8,
    params: str | None = None,
    scale_bias_last: bool = True,
    dtype: str = "float32",
    bfloat16_rounding: str = "rne",
) -> np.ndarray:
    """The sum of the table's rows that the indices of a bag name, one row of the result for each bag.

    The steps are those of FBGEMM's `EmbeddingSpMDM_ref`, `EmbeddingSpMDMNBit_ref` and their RowWiseSparse forms. From
    0 on, index by index, each operation rounded to float32 once:

        sum = fma(weight, row, sum)                                       of float rows
        sum = fma(weight * scale, code, sum + weight * bias)              of codes, the row's scale and bias beside them
        sum = sum * (1 / length)                                          with `mean`, unless the bag is empty

    The length counts pruned rows too.

    Args:
        table: float32 or float16 `(rows, columns)`; uint16 for bfloat16 as its bits; or uint8 rows of `quantize_rows`.
        indices: int32 or int64 `(count,)`, those of all bags one after the other.
        offsets: `(bags + 1,)`, where each bag begins and, last, the end. Without offsets and lengths every index is a
            bag of its own.
        lengths: `(bags,)`, instead of offsets.
        weights: float32 `(count,)`, one for every index; positional, `(longest bag or more,)`, one for every place in
            a bag. None for ones.
        positional: what `weights` belong to.
        mean: divide by the bag's length.
        remap: int32 `(original rows,)`: the row that an index stands for, or -1 of a pruned one, which adds nothing.
        bits, params, scale_bias_last: of uint8 rows, as of `unpack_rows`; None: float32 for 8 bits, else float16.
        dtype: "float32", "float16" or "bfloat16" of the result, which rounds it to nearest, ties to even.
        bfloat16_rounding: "rne", or "half_up" as FBGEMM has it here.

    Returns:
        `(bags, columns)` of `dtype`; bfloat16 as its bits, uint16.

    Raises:
        InputError: an index or a row out of range, which it names; offsets or lengths that do not fit the indices.
    """
    starts = _starts(indices.size, offsets, lengths)
    rows = _rows(indices, table.shape[0], remap)
    counts = np.diff(starts)
    needed = counts.max(initial=0) if positional else indices.size
    if weights is not None and weights.size < needed:
        raise InputError(f"weights has {weights.size} elements, expected {needed}")
    values, scale, bias = _values(table, bits, params, scale_bias_last)

    total = np.zeros((counts.size, values.shape[1]), np.float32)
    for place in range(counts.max(initial=0)):
        bags = np.flatnonzero(counts > place)
        bags = bags[rows[starts[bags] + place] >= 0]
        at = starts[bags] + place
        row, weight = rows[at], np.float32(1)
        if weights is not None:
            weight = weights[place] if positional else weights[at, None]
        if scale is None or bias is None:
            total[bags] = fma(weight, values[row], total[bags])
        else:
            beside = total[bags] + weight * bias[row, None]
            total[bags] = fma(weight * scale[row, None], values[row], beside)
    if mean:
        total *= (np.float32(1) / np.maximum(counts, 1).astype(np.float32))[:, None]
    if dtype == "bfloat16":
        return to_bfloat16(total, bfloat16_rounding)
    return to_float16(total) if dtype == "float16" else total


def remap_indices(
    indices: np.ndarray,
    remap: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The bags without their pruned indices: FBGEMM's `compressed_indices_remap_ref`.

    Args:
        indices, offsets, weights: of `embedding_bag`; weights not positional.
        remap: int32, the row that an index stands for, or -1.

    Returns:
        indices of the remaining rows, and the offsets and weights that belong to them.
    """
    _starts(indices.size, offsets, None)
    rows = _rows(indices, None, remap)
    kept = rows >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return (
        rows[kept].astype(indices.dtype),
        before[offsets].astype(offsets.dtype),
        None if weights is None else weights[kept],
    )


def _starts(count: int, offsets: np.ndarray | None, lengths: np.ndarray | None) -> np.ndarray:
    """Where bags begin and end, `(bags + 1,)`."""
    if offsets is not None and lengths is not None:
        raise InputError("offsets and lengths were given; expected one of them")
    if offsets is None and lengths is None:
        return np.arange(count + 1)
    name = "lengths" if offsets is None else "offsets"
    if lengths is not None:
        steps = lengths.astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(steps)])
    else:
        starts = np.asarray(offsets, np.int64)
        steps = np.diff(starts)
    if (steps < 0).any():
        bag = int(np.flatnonzero(steps < 0)[0])
        raise InputError(f"{name} give bag {bag} the length {steps[bag]}")
    if starts.size == 0 or starts[0] != 0 or starts[-1] != count:
        ends = f"{starts[0]} to {starts[-1]}" if starts.size else "nothing"
        raise InputError(f"{name} cover indices {ends}; expected 0 to {count}")
    return starts


def _rows(indices: np.ndarray, rows: int | None, remap: np.ndarray | None) -> np.ndarray:
    """The table's row of every index, -1 if pruned."""
    known = indices.astype(np.int64)
    limit = rows if remap is None else remap.size
    if limit is not None:
        _refuse("indices", known, 0, limit)
    if remap is None:
        return known
    found = remap.astype(np.int64)[known]
    if rows is not None:
        _refuse("rows of remapped indices", found, -1, rows)
    return found


def _refuse(name: str, values: np.ndarray, low: int, limit: int) -> None:
    bad = np.flatnonzero((values < low) | (values >= limit))
    if bad.size:
        raise InputError(
            f"{name}: number {bad[0]} is {values[bad[0]]}; expected {low} to {limit - 1}"
        )


def _values(
    table: np.ndarray, bits: int, params: str | None, scale_bias_last: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Elements of the table, and the scales and biases of its rows, if they are codes."""
    if table.dtype == np.uint8:
        default = "float32" if bits == 8 else "float16"
        return unpack_rows(table, bits, params or default, scale_bias_last)
    if table.dtype == np.uint16:
        return from_bfloat16(table), None, None
    if table.dtype not in (np.float32, np.float16):
        raise InputError(f"table is {table.dtype}; expected float32, float16, uint16 or uint8")
    return table.astype(np.float32), None, None
