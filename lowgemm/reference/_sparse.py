"""Products with sparse weights: int8 columns and blocks, float32 rows."""

from dataclasses import dataclass

import numpy as np

from lowgemm.errors import InputError
from lowgemm.quant import fma
from lowgemm.reference._integer import gemm_i32


@dataclass(frozen=True)
class SparseColumns:
    """A sparse int8 matrix, column by column (CSC): column j is values[starts[j]:starts[j + 1]] in rows[...].

    Attributes:
        depth: number of rows.
        starts: int32 `(columns + 1,)`.
        rows: int32 `(nonzeros,)`, rising within a column. (FBGEMM's are 16 bits wide.)
        values: int8 `(nonzeros,)`.
    """

    depth: int
    starts: np.ndarray
    rows: np.ndarray
    values: np.ndarray

    @classmethod
    def from_dense(cls, dense: np.ndarray) -> "SparseColumns":
        """All elements of int8 `(depth, columns)` but zeros."""
        starts, rows, values = _compress(dense.T)
        return cls(dense.shape[0], starts, rows, values)

    def to_dense(self) -> np.ndarray:
        """int8 `(depth, columns)`."""
        return _expand(self.starts, self.rows, self.values, self.depth).T


@dataclass(frozen=True)
class SparseRows:
    """A sparse float32 matrix, row by row (CSR): row i is values[starts[i]:starts[i + 1]] in columns[...].

    Attributes:
        depth: number of columns.
        starts: int32 `(rows + 1,)`.
        columns: int32 `(nonzeros,)`.
        values: float32 `(nonzeros,)`.
    """

    depth: int
    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @classmethod
    def from_dense(cls, dense: np.ndarray) -> "SparseRows":
        """All elements of float32 `(rows, depth)` but zeros."""
        return cls(dense.shape[1], *_compress(dense))

    def to_dense(self) -> np.ndarray:
        """float32 `(rows, depth)`."""
        return _expand(self.starts, self.columns, self.values, self.depth)


@dataclass(frozen=True)
class SparseBlocks:
    """A sparse int8 matrix in blocks of one row and four columns (FBGEMM's BCSR), row by row.

    Block b of row i lies in columns 4 * blocks[b] to 4 * blocks[b] + 3, for b in starts[i] to starts[i + 1] - 1. A last
    block that sticks out is filled with zeros.

    Attributes:
        depth: number of columns.
        starts: int32 `(rows + 1,)`.
        blocks: int32 `(count,)`, rising within a row.
        values: int8 `(count, 4)`.
    """

    depth: int
    starts: np.ndarray
    blocks: np.ndarray
    values: np.ndarray

    @classmethod
    def from_dense(cls, dense: np.ndarray) -> "SparseBlocks":
        """The blocks of int8 `(rows, depth)` that hold anything but zeros."""
        rows, depth = dense.shape
        count = -(-depth // 4)
        cut = np.pad(dense, ((0, 0), (0, 4 * count - depth))).reshape(rows, count, 4)
        filled = np.asarray(cut.any(axis=2))
        starts, blocks, _ = _compress(filled)
        return cls(depth, starts, blocks, cut[filled])

    def to_dense(self) -> np.ndarray:
        """int8 `(rows, depth)`."""
        dense = np.zeros((self.starts.size - 1, -(-self.depth // 4), 4), np.int8)
        dense[_row_of_each(self.starts), self.blocks] = self.values
        return dense.reshape(dense.shape[0], -1)[:, : self.depth]


def spmdm_i32(
    lhs: np.ndarray, rhs: SparseColumns, plus: np.ndarray | None = None, groups: int = 1
) -> np.ndarray:
    """plus + lhs times the sparse matrix, mod 2**32: FBGEMM's `spmdm_ref`, no zero point taken off.

    Args:
        lhs: uint8 or int8 `(rows, groups * depth)`.
        rhs: `(depth, groups * columns)`: the groups' columns side by side.
        plus: int32 `(rows, groups * columns)`; None for nothing.
        groups: group g multiplies its own depth of `lhs`.

    Returns:
        int32 `(rows, groups * columns)`.
    """
    dense = rhs.to_dense()
    below = dense.reshape(rhs.depth, groups, -1).swapaxes(0, 1).reshape(groups * rhs.depth, -1)
    acc = gemm_i32(lhs, below, groups=groups)
    return acc if plus is None else acc + plus


def sparse_gemm_i32(
    weight: SparseBlocks, x: np.ndarray, plus: np.ndarray | None = None
) -> np.ndarray:
    """plus + weight times x, mod 2**32: FBGEMM's `fbgemmSparseDenseInt8MM` before it requantizes.

    The weights are the left operand, so activations and sums are transposed against those of other products.

    Args:
        weight: `(outputs, depth)`.
        x: uint8 or int8 `(depth, columns)`.
        plus: int32 `(outputs, columns)`; None for nothing.

    Returns:
        int32 `(outputs, columns)`.
    """
    acc = gemm_i32(weight.to_dense(), x)
    return acc if plus is None else acc + plus


def sparse_gemm_f32(lhs: SparseRows, rhs: np.ndarray, plus: np.ndarray | None = None) -> np.ndarray:
    """plus + lhs times rhs in float32, the nonzeros of a row one after the other: FBGEMM's `sparseDenseMMRef`.

        acc[i, j] = fma(value, rhs[column, j], acc[i, j])

    from `plus` or 0 on, in the order of the row's nonzeros, each step rounded once. (FBGEMM leaves it to the compiler
    whether the product is rounded for itself.)

    Args:
        lhs: `(rows, depth)`.
        rhs: float32 `(depth, columns)`.
        plus: float32 `(rows, columns)`; None for zeros.

    Returns:
        float32 `(rows, columns)`.
    """
    if rhs.shape[0] != lhs.depth:
        raise InputError(f"lhs has depth {lhs.depth}, rhs {rhs.shape[0]} rows")
    counts = np.diff(lhs.starts)
    acc = np.zeros((counts.size, rhs.shape[1]), np.float32) if plus is None else plus.copy()
    for step in range(counts.max(initial=0)):  # the step-th nonzero of all rows that have one
        rows = np.flatnonzero(counts > step)
        at = lhs.starts[rows] + step
        acc[rows] = fma(lhs.values[at, None], rhs[lhs.columns[at]], acc[rows])
    return acc


def _compress(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, place in the row, value) of the nonzeros of a matrix, row by row."""
    rows, columns = np.nonzero(dense)
    counts = np.bincount(rows, minlength=dense.shape[0])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return starts, columns.astype(np.int32), dense[rows, columns]


def _expand(starts, columns, values, width: int) -> np.ndarray:
    dense = np.zeros((starts.size - 1, width), values.dtype)
    dense[_row_of_each(starts), columns] = values
    return dense


def _row_of_each(starts: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(starts.size - 1), np.diff(starts))
