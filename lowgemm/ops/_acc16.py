"""Integer matrix products with packed weights in saturating 16-bit accumulators, and weights split by size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import array, expect, instance, level
from lowgemm.ops._gemm import PackedGemm
from lowgemm.ops._library import Library, kernels
from lowgemm.ops._output import Output, stage_arguments
from lowgemm.ops._product import (
    BLOCK_BYTES,
    ProductOptions,
    ProductPart,
    check_depth,
    checked_options,
    column_arrays,
    left_zero_point,
    packed_columns,
    right_matrices,
    weight_zeros,
)
from lowgemm.reference import SparseColumns, split_outliers
from lowgemm.targets import CpuTarget
from lowgemm.tiling import acc16_configs, acc16_packing


class PackedGemmAcc16(PackedGemm):
    """The product with one packed right matrix in 16-bit accumulators: what `pack_gemm_acc16` returns.

    It is called, and bound, as `PackedGemm` is.
    """

    def __init__(self, parts: list[ProductPart], options: ProductOptions, outliers: bool) -> None:
        super().__init__(parts, options)
        self._outliers = outliers

    def with_output(self, output: Output) -> PackedGemmAcc16:
        """The same packed weight with another output stage.

        Args:
            output: in the place of the first one.

        Raises:
            OperandError: it does not fit the product, as in `pack_gemm_acc16`.
        """
        options = self._options.with_output(output)
        parts = []
        for part in self._parts:
            lists = {name: value for name, value in part.arrays.items() if name == "lists"}
            changed = part.with_output(options)
            changed.arrays.update(lists)
            parts.append(changed)
        return PackedGemmAcc16(parts, options, self._outliers)

    def _variant(self, transposed: bool, strided: bool) -> Any:
        found = self._variants.get((transposed, strided))
        if found is None:
            found = Acc16Variant(self._options, self._outliers, transposed, strided)
            self._variants[transposed, strided] = found  # pyright: ignore[reportArgumentType]
        return found


class Acc16Variant:
    """The compiled functions for one layout of the operands.

    `taps` are the sizes of the window along three axes if the left matrix is gathered, else empty.
    """

    def __init__(
        self,
        options: ProductOptions,
        outliers: bool,
        transposed: bool,
        strided: bool,
        taps: tuple[int, ...] = (),
    ) -> None:
        packing, target = options.packing, options.target
        form = {
            "depth": options.depth,
            "columns": options.columns,
            "staged": not taps and (transposed or packing.padded_run != packing.run),
            "transposed": transposed,
            "outliers": outliers,
            "taps": taps,
        }
        output = options.output_form()
        configs = acc16_configs(packing, target)
        self.symbols = [f"rows{config.rows}" for config in configs]
        self.names = [*(["lists"] if outliers else []), *stage_arguments(output, False)]
        wide = options.depth * (2 if form["staged"] else 1)
        wide += 4 * options.columns * (2 if outliers else 1)
        self.block = max(1, BLOCK_BYTES // (wide * configs[-1].rows))

        def make():
            from lowgemm import schedules, topi
            from lowgemm.ops._buffers import strided_rows

            functions = {}
            for symbol, config in zip(self.symbols, configs, strict=True):
                spec = topi.Acc16Form(config.rows, output=topi.OutputForm(**output), **form)
                func = topi.qgemm_acc16(spec, packing)
                if strided:
                    apart = {"other", "dst"} | (set() if transposed or taps else {"data"})
                    func = strided_rows(func, apart)
                functions[symbol] = schedules.schedule_qgemm_acc16(func, packing, spec, config)
            return functions

        params = {**form, "output": output, "panels": packing.panels, "strided": strided}
        self.library: Library = kernels("qgemm_acc16", params, target, make)


def pack_gemm_acc16(
    b: Any,
    *,
    a_zero_point: int | Literal["row"] = 0,
    b_zero_point: Any = 0,
    groups: int = 1,
    transposed: bool = False,
    outliers: bool = False,
    output: Output | None = None,
    target: str | CpuTarget = "host",
) -> PackedGemmAcc16:
    """Pack the right matrix of uint8 products a @ b that are accumulated in 16 bits: FBGEMM's acc16.

    Pairs of products saturate to 16 bits, and so does their running sum, which is added to a 32-bit sum after every 256
    of the depth, as `reference.gemm_acc16` has it bit for bit on all levels. The zero points and the output stage then
    work on this sum. It takes about half the instructions of an exact product without VNNI; with VNNI the exact product
    is faster.

    Args:
        b: int8 `(groups * depth, columns)`, or, transposed, `(groups * columns, depth)`; with an axis more in front for
            a batch of left matrices, each with its own.
        a_zero_point: of the left matrix; "row": each call gives one for each row.
        b_zero_point: of the right matrix: a scalar, one for each group, or one for each of all `groups * columns`.
        groups: the left matrix's columns are cut into so many parts, each multiplied with its part of `b`; the results
            stand side by side.
        transposed: how `b` is given.
        outliers: split off the weights outside [-64, 64) (`reference.split_outliers`). Their product is summed in 32
            bits, and what is left saturates no pair; the result is exact where no sum of 256 of the depth leaves 16
            bits.
        output: what becomes of the sums; without it they are returned.
        target: "host", or a level's name.

    Returns:
        What multiplies; the left matrix of a call is uint8 `(..., rows, groups * depth)`.

    Raises:
        OperandError: an argument does not fit; also if the depth is so large that an exact sum could exceed 32 bits.
        TargetError: no such level, or this CPU lacks it.
    """
    instance("output", output, Output)
    b = expect(array(b, "b"), "b", "int8")
    matrices = right_matrices(b, groups, transposed)
    batched = b.ndim == 3
    depth, columns = matrices[0].shape
    row_zero, point = left_zero_point("uint8", a_zero_point, None)
    zeros = weight_zeros(b_zero_point, b.dtype, columns, len(matrices))
    check_depth(depth, "uint8", point, zeros)
    chosen = level(target)
    options = checked_options(
        depth=depth,
        columns=columns,
        in_dtype="uint8",
        quantize=None,
        row_zero=row_zero,
        weight_zero=bool(zeros.any()),
        batched=batched,
        packing=acc16_packing(depth, columns, chosen),
        output=output or Output(),
        target=chosen,
    )
    parts, outliers = acc16_parts(options, matrices, zeros, point or 0, outliers)
    return PackedGemmAcc16(parts, options, outliers)


def acc16_parts(
    options: ProductOptions,
    matrices: Sequence[np.ndarray],
    zeros: np.ndarray,
    point: int,
    outliers: bool,
) -> tuple[list[ProductPart], bool]:
    """Weights int8 `(depth, columns)` packed, and whether any outliers were split off, which `outliers` asks for."""
    split = [split_outliers(matrix) if outliers else (matrix, None) for matrix in matrices]
    outliers = any(sparse is not None and sparse.values.size for _, sparse in split)
    parts = []
    for number, (matrix, (dense, sparse)) in enumerate(zip(matrices, split, strict=True)):
        sums = matrix.sum(0, dtype=np.int64)
        slot = (0, 1) if options.batched else (number, len(matrices))
        arrays = column_arrays(options, sums, zeros[number], point, slot)
        if outliers and sparse is not None:
            arrays["lists"] = _lists(sparse)
        packed = packed_columns(options.packing, dense)
        parts.append(ProductPart(packed, sums, zeros[number], point, slot, arrays))
    return parts, outliers


def _lists(sparse: SparseColumns) -> np.ndarray:
    """The outliers as the kernel takes them: only columns and places of the depth that hold any."""
    used, places = np.unique(sparse.rows, return_inverse=True)
    counts = np.diff(sparse.starts)
    filled = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[filled])])
    pairs = np.stack([places.reshape(-1), sparse.values], axis=1)
    sizes = [used.size, filled.size]
    return np.concatenate([sizes, used, filled, starts, pairs.reshape(-1)]).astype(np.int32)
