"""Products of sparse packed weights and dense activations; the weights are the left operand."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowgemm.ops._arrays import (
    OperandError,
    array,
    expect,
    instance,
    integer,
    one_scale,
    positive_scale,
)
from lowgemm.ops._output import spread
from lowgemm.ops._prepared import Prepared, operand, resolve, result, target_key
from lowgemm.reference import SparseBlocks, SparseRows
from lowgemm.targets import CpuTarget

_BLOCK = 4
_UINT8, _INT32, _FLOAT32 = map(np.dtype, (np.uint8, np.int32, np.float32))
# A stored weight takes as long as some multiply-accumulates of a dense product.
_WORK = 4


@dataclass(frozen=True, eq=False)
class SparseOutput:
    """From the sums of a product with int8 blocks to uint8 codes: FBGEMM's `trRequantize`.

        t = sum_k (W[i, k] - weight_zero_point[i]) * (x[k, j] - x_zero_point)                   modulo 2^32
        code = clamp(rint((float32(t) + bias[i] / scale[i]) * scale[i] / out_scale) + zero_point)

    each step rounded to float32, ties to even; weights that are not stored are codes 0.

    Args:
        scale: x scale * weight scale, float32; a scalar or one for each output. Above zero.
        out_scale, zero_point: of the codes.
        x_zero_point: 0 to 255.
        weight_zero_point: -128 to 127, a scalar or one for each output.
        bias: float32, one for each output, in real units.
        relu: let no code be less than the zero point.
    """

    scale: Any
    out_scale: float
    zero_point: int = 0
    x_zero_point: int = 0
    weight_zero_point: Any = 0
    bias: np.ndarray | None = None
    relu: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            OperandError: naming the field.
        """
        positive_scale(self.scale, "scale")
        one_scale(self.out_scale, "out_scale")
        integer(self.zero_point, "zero_point", 0, 255)
        integer(self.x_zero_point, "x_zero_point", 0, 255)
        zeros = np.asarray(self.weight_zero_point)
        if zeros.dtype.kind not in "iu" or (
            zeros.size and not -128 <= zeros.min() <= zeros.max() < 128
        ):
            raise OperandError(
                f"weight_zero_point: expected integers from -128 to 127, got {zeros}"
            )
        if self.bias is not None:
            bias = expect(array(self.bias, "bias"), "bias", "float32", ("outputs",))
            object.__setattr__(self, "bias", bias)


class PackedSparseGemm:
    """The product of one sparse weight: what `pack_sparse_gemm` and `pack_sparse_gemm_f32` return.

    Several threads may call it at a time, with any numbers of columns.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtypes: tuple[np.dtype, np.dtype],
        kernel: tuple[str, dict[str, bool], CpuTarget],
        lists: tuple[np.ndarray, ...],
        held: tuple[np.ndarray, ...],
    ) -> None:
        self.outputs, self.depth = shape
        self.target = kernel[2]
        self._in, self._out = dtypes
        self._kernel, self._lists, self._held = kernel, lists, held
        self._sums = _FLOAT32 if self._in == _FLOAT32 else _INT32

    def __call__(self, x: Any, out: Any = None, *, plus: Any = None) -> np.ndarray:
        """The product; `pack_sparse_gemm` and `pack_sparse_gemm_f32` have the formulas.

        Args:
            x: uint8 (of a float32 weight: float32) `(depth, columns)`, contiguous.
            out: where to write, `(outputs, columns)`, contiguous; else a new array.
            plus: int32 (of a float32 weight: float32) `(outputs, columns)`: what the sums begin with instead of 0.

        Returns:
            `(outputs, columns)`: int32 or float32 sums, or uint8 with a `SparseOutput`.

        Raises:
            OperandError: naming the argument, what was expected and what came.
        """
        x = operand(x, "x", (self._in,))
        expect(x, "x", self._in.name, (self.depth, "columns"))
        shape = (self.outputs, x.shape[1])
        inputs = [x]
        if plus is not None:
            plus = operand(plus, "plus", (self._sums,))
            inputs.append(expect(plus, "plus", self._sums.name, shape))
        out = result(out, shape, self._out, *inputs)
        if not out.size:
            return out
        op, form, target = self._kernel
        run = _kernel(op, tuple(form.items()), plus is not None, target)
        work = (self._lists[1].size * (_BLOCK if op == "sparse_blocks" else 1) + self.depth) * _WORK
        run(work * x.shape[1], *self._lists, x, *self._held, *inputs[1:], out)
        return out


def pack_sparse_gemm(
    weight: Any, *, output: SparseOutput | None = None, target: str | CpuTarget = "host"
) -> PackedSparseGemm:
    """Pack a sparse int8 weight of products weight @ x with uint8 x, in blocks of one row and four columns.

    It is FBGEMM's `fbgemmSparseDenseInt8MM`. Sums are exact modulo 2^32; only blocks that are stored are multiplied.
    The kernels are compiled for no particular sizes.

    Args:
        weight: int8 `(outputs, depth)`, of which the blocks with anything but zeros are kept; or
            `reference.SparseBlocks`, all blocks of which are, with blocks rising within a row.
        output: what becomes of the sums; without it they are returned as int32.
        target: "host", or a level's name.

    Returns:
        What multiplies; the right matrix of a call is uint8 `(depth, columns)`.

    Raises:
        OperandError: an argument does not fit; of index arrays, which, where, and what was expected there.
        TargetError: no such level, or this CPU lacks it.
    """
    if not isinstance(weight, SparseBlocks):
        dense = expect(array(weight, "weight"), "weight", "int8", ("outputs", "depth"))
        _filled("weight", dense.shape)
        weight = SparseBlocks.from_dense(dense)
    else:
        _checked(weight, "blocks", -(-weight.depth // _BLOCK))
        values = expect(array(weight.values, "weight.values"), "weight.values", "int8")
        expect(values, "weight.values", "int8", (weight.blocks.size, _BLOCK))
        beyond = (weight.blocks[:, None] * _BLOCK + np.arange(_BLOCK) >= weight.depth) & (
            values != 0
        )
        if beyond.any():
            at = int(np.argwhere(beyond)[0, 0])
            raise OperandError(
                f"weight.values: expected zeros from column {weight.depth} on, got {values[at]} in block {at}"
            )
    instance("output", output, SparseOutput)
    chosen = resolve(target_key(target))
    outputs = weight.starts.size - 1
    form = {"codes": output is not None, "weight_zero": False}
    held: tuple[np.ndarray, ...] = ()
    if output is not None:
        zeros = spread(np.asarray(output.weight_zero_point), "weight_zero_point", outputs, 1)
        sums = np.zeros(outputs, np.int64)
        np.add.at(sums, np.repeat(np.arange(outputs), np.diff(weight.starts)), weight.values.sum(1))
        offset = -output.x_zero_point * (sums - zeros.astype(np.int64) * weight.depth)
        scale = spread(positive_scale(output.scale, "scale"), "scale", outputs, 1)
        bias = np.zeros(outputs, np.float32)
        if output.bias is not None:
            with np.errstate(over="ignore"):
                bias = spread(output.bias, "bias", outputs, 0) / scale
        form["weight_zero"] = bool(zeros.any())
        least = output.zero_point if output.relu else 0
        params = np.array([output.out_scale, output.zero_point, least], np.float32)
        held = (offset.astype(np.int32), bias, scale, params)
        if form["weight_zero"]:
            held = (held[0], zeros.astype(np.int32), *held[1:])
    lists = (weight.starts, weight.blocks, _words(weight.values, chosen))
    return PackedSparseGemm(
        (outputs, weight.depth),
        (_UINT8, _UINT8 if output is not None else _INT32),
        ("sparse_blocks", form, chosen),
        tuple(map(np.ascontiguousarray, lists)),
        held,
    )


def pack_sparse_gemm_f32(weight: Any, *, target: str | CpuTarget = "host") -> PackedSparseGemm:
    """Pack a sparse float32 weight of products weight @ x with float32 x.

        acc = fma(value, x[place, j], acc)

    in the order of a row's stored values, each step rounded once, as `reference.sparse_gemm_f32` has it bit for bit
    (FBGEMM's `SparseDenseMM`). The kernels are compiled for no particular sizes.

    Args:
        weight: float32 `(outputs, depth)`, of which all but zeros is kept; or `reference.SparseRows`, all values of
            which are, with columns rising within a row.
        target: "host", or a level's name.

    Returns:
        What multiplies; the right matrix of a call is float32 `(depth, columns)`.

    Raises:
        OperandError: an argument does not fit; of index arrays, which, where, and what was expected there.
        TargetError: no such level, or this CPU lacks it.
    """
    if not isinstance(weight, SparseRows):
        dense = expect(array(weight, "weight"), "weight", "float32", ("outputs", "depth"))
        _filled("weight", dense.shape)
        weight = SparseRows.from_dense(dense)
    else:
        _checked(weight, "columns", weight.depth)
        values = array(weight.values, "weight.values")
        expect(values, "weight.values", "float32", (weight.columns.size,))
    lists = (weight.starts, weight.columns, weight.values)
    return PackedSparseGemm(
        (weight.starts.size - 1, weight.depth),
        (_FLOAT32, _FLOAT32),
        ("sparse_rows", {}, resolve(target_key(target))),
        tuple(map(np.ascontiguousarray, lists)),
        (),
    )


def _filled(name: str, shape: tuple[int, ...]) -> None:
    if 0 in shape:
        raise OperandError(f"{name}: expected at least one row and one column, got shape {shape}")


def _checked(weight: SparseBlocks | SparseRows, name: str, limit: int) -> None:
    """Refuse starts that do not cover the places, and places out of range or out of order.

    `name` is the attribute that holds places, which are below `limit`.
    """
    integer(weight.depth, "weight.depth", 1)
    starts = expect(
        array(weight.starts, "weight.starts"), "weight.starts", "int32", ("outputs + 1",)
    )
    where = f"weight.{name}"
    places = expect(array(getattr(weight, name), where), where, "int32", ("count",))
    if starts.size < 2:
        raise OperandError(f"weight.starts: expected at least 2, got {starts.size}")
    if starts[0] != 0 or starts[-1] != places.size:
        raise OperandError(
            f"weight.starts: expected to go from 0 to {places.size}, got {starts[0]} to {starts[-1]}"
        )
    falling = np.flatnonzero(np.diff(starts) < 0)
    if falling.size:
        row = int(falling[0])
        raise OperandError(
            f"weight.starts: expected no end before the start, got {starts[row]} to {starts[row + 1]} of row {row}"
        )
    bad = np.flatnonzero((places < 0) | (places >= limit))
    if bad.size:
        at = int(bad[0])
        raise OperandError(f"{where}: expected 0 to {limit - 1}, got {places[at]} at position {at}")
    row_of = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    unsorted = np.flatnonzero((np.diff(places) <= 0) & (np.diff(row_of) == 0))
    if unsorted.size:
        at = int(unsorted[0])
        raise OperandError(
            f"{where}: expected to rise within a row, got {places[at + 1]} after {places[at]} in row {row_of[at]}"
        )


def _words(values: np.ndarray, target: CpuTarget) -> np.ndarray:
    """Blocks `(count, 4)` int8 as int32 words `(count, 4 / dot depth)` of the target's dot product."""
    kind = np.int8 if target.dot_depth == _BLOCK else np.int16
    words = np.ascontiguousarray(values, kind).view(np.int32)
    return words.reshape(len(values), _BLOCK // target.dot_depth)


@functools.cache
def _kernel(op: str, form: tuple[tuple[str, bool], ...], plus: bool, target: CpuTarget) -> Prepared:
    params = {**dict(form), "plus": plus}

    def make():
        from lowgemm import schedules, topi

        if op == "sparse_rows":
            return schedules.schedule_sparse_rows(plus, target)
        return schedules.schedule_sparse_blocks(topi.SparseForm(**params), target)

    return Prepared(op, params, target, make)
