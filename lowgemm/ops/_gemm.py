"""Integer matrix products with packed weights."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import (
    OperandError,
    aligned,
    apart,
    array,
    expect,
    instance,
    level,
    one_of,
    positive_scale,
)
from lowgemm.ops._call import Call
from lowgemm.ops._library import Library, kernels
from lowgemm.ops._output import EIGHT_BIT, Output, stage_arguments, store_type
from lowgemm.ops._product import (
    BLOCK_BYTES,
    ProductOptions,
    ProductPart,
    Quantize,
    check_depth,
    checked_options,
    column_arrays,
    left_zero_point,
    packed_columns,
    right_matrices,
    weight_zeros,
)
from lowgemm.packing import ConvPacking, enough_pairs
from lowgemm.quant import choose_qparams
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    default_gemm_configs,
    gemm_packing,
    gemm_staged,
    paired_panels,
    summing_target,
)


class PackedGemm:
    """The product with one packed right matrix, and its output stage: what `pack_gemm` returns.

    Several threads may call it at a time, with any numbers of rows.
    """

    def __init__(self, parts: list[ProductPart], options: ProductOptions) -> None:
        self._parts, self._options = parts, options
        self.depth = options.depth
        self.groups = 1 if options.batched else len(parts)
        self.columns = options.columns * self.groups
        self.target, self.output = options.target, options.output
        self._in = np.dtype(options.in_dtype)
        self._out = store_type(self.output.dtype)
        self._variants: dict[tuple[bool, bool], _Variant] = {}
        self._local = threading.local()
        # Whether one native call makes a product of contiguous matrices, and whether of nothing but `a`.
        self._simple = len(parts) == 1 and not options.batched
        self._ranged = options.quantize is not None and options.quantize.range == "tensor"
        self._alone = self._simple and not (
            self._ranged
            or self.output.row_scale
            or self.output.residual
            or options.row_zero == "given"
        )
        self._static = None
        if options.quantize is not None and options.quantize.range == "static":
            self._static = _quantizing(options.quantize.scale, options.quantize.zero_point)
        self._work = self.depth * self.columns

    def __call__(
        self,
        a: Any,
        out: Any = None,
        *,
        row_scale: Any = None,
        row_zero_point: Any = None,
        residual: Any = None,
    ) -> np.ndarray:
        """The product, and what the output stage makes of it: `pack_gemm` has the formula.

        Args:
            a: `(..., rows, groups * depth)` in the dtype packed for. The elements of each row are adjacent, or, in a
                transposed matrix, those of each column.
            out: where to write, `(..., rows, columns)`, the elements of each row adjacent and rows apart, in other
                memory than `a` and `residual`; else a new array.
            row_scale: float32 `(..., rows)`, finite and above zero, if the output stage has one.
            row_zero_point: int32 `(..., rows)`, codes of `a`, if packed with `a_zero_point="row"`.
            residual: of the output's shape, if the output stage has one.

        Returns:
            `(..., rows, columns)` of the output stage's dtype.

        Raises:
            OperandError: naming the argument, what was expected and what came.
        """
        bare = self._alone and row_scale is None and row_zero_point is None and residual is None
        if (
            self._simple
            and type(a) is np.ndarray
            and a.ndim == 2
            and a.dtype is self._in
            and a.shape[1] == self.depth
            and a.flags.c_contiguous
            and a.flags.aligned
        ):
            rows = a.shape[0]
            shape = (rows, self.columns)
            given = out is not None
            if not given:
                out = np.empty(shape, self._out)
            if (
                type(out) is np.ndarray
                and out.dtype is self._out
                and out.shape == shape
                and out.flags.carray
                and a.size < 2**31 > out.size
                and not (given and np.may_share_memory(a, out))
            ):
                extras = {}
                if not bare:
                    extras = self._extras(a, out, row_scale, row_zero_point, residual)
                if bare or all(x.flags.c_contiguous for x in extras.values()):
                    self._contiguous(a, out, extras)
                    return out
        a = self._checked(a)
        shape = (*a.shape[:-1], self.columns)
        if bare and out is None and a.ndim > 2 and a.flags.c_contiguous:
            # The rows of all matrices are those of one.
            return self(a.reshape(-1, self.depth)).reshape(shape)
        out = np.empty(shape, self._out) if out is None else self._checked_out(out, shape)
        extras = self._extras(a, out, row_scale, row_zero_point, residual)
        for call in self._calls(a, out, extras):
            call()
        return out

    def _contiguous(self, a: np.ndarray, out: np.ndarray, extras: dict[str, np.ndarray]) -> None:
        """Multiply one contiguous matrix, by a call that is described once in each thread."""
        local = self._local.__dict__
        call: Call | None = local.get("call")
        if call is None:
            (call,) = self._calls(a, out, extras)
            call.release()
            names = self._variant(False, False).names
            first = call.last - len(names)
            local["call"] = call
            numbers = {name: first + i for i, name in enumerate(names)}
            local["numbers"] = {"quantize": first - 1, **numbers}
        call.rebind(0, a)
        call.rebind(call.last, out)
        if extras:
            numbers = local["numbers"]
            for name, value in extras.items():
                call.rebind(numbers[name], value)
        rows = a.shape[0]
        call.set_rows(rows, rows * self._work)
        call()

    def bind(
        self,
        a: np.ndarray,
        out: np.ndarray,
        *,
        row_scale: Any = None,
        row_zero_point: Any = None,
        residual: Any = None,
    ) -> Callable[[], None]:
        """A function without arguments that multiplies what these arrays hold when it is called.

        It costs less than a call with arrays. It is for one thread at a time. Arguments and errors are those of a call.
        """
        if self._options.quantize is not None and self._options.quantize.range == "tensor":
            raise OperandError(
                'a: cannot be bound with the range "tensor", which each call finds anew'
            )
        a = self._checked(a)
        out = self._checked_out(out, (*a.shape[:-1], self.columns))
        calls = self._calls(a, out, self._extras(a, out, row_scale, row_zero_point, residual))
        if len(calls) == 1:
            return calls[0]

        def run() -> None:
            for call in calls:
                call()

        return run

    def with_output(self, output: Output) -> PackedGemm:
        """The same packed weight with another output stage.

        Args:
            output: in the place of the first one.

        Raises:
            OperandError: it does not fit the product, as in `pack_gemm`.
        """
        options = self._options.with_output(output)
        return PackedGemm([part.with_output(options) for part in self._parts], options)

    def _checked(self, a: Any) -> np.ndarray:
        wide = self.depth * self.groups
        lead: tuple = ("...",)
        a = array(a, "a")
        if self._options.batched:
            lead = (len(self._parts),)
        if a.ndim < 2 or a.dtype != self._in or a.shape[-1] != wide:
            expect(a, "a", self._in.name, (*lead, "rows", wide))
        if self._options.batched and (a.ndim != 3 or a.shape[0] != len(self._parts)):
            expect(a, "a", self._in.name, (*lead, "rows", wide))
        return a

    def _checked_out(self, out: Any, shape: tuple[int, ...]) -> np.ndarray:
        out = array(out, "out")
        expect(out, "out", self._out.name, shape)
        if not out.flags.writeable:
            raise OperandError("out: expected an array that can be written to")
        if out.size:
            apart = out.shape[-1] * out.itemsize
            if _scattered(out) or (out.shape[-2] > 1 and out.strides[-2] < apart):
                raise OperandError(
                    f"out: expected adjacent elements in rows, and rows one after the other, got strides {out.strides}"
                )
        return out

    def _calls(self, a, out, extras: dict[str, np.ndarray]) -> list[Call]:
        """The native calls of all parts: of groups, of batches, of leading axes that cannot be merged."""
        options = self._options
        quantize = extras.get("quantize", self._static)
        calls = []
        for index in np.ndindex(a.shape[:-2]):
            view = {name: value[index] for name, value in extras.items() if name != "quantize"}
            for number, part in enumerate(self._parts):
                if options.batched and index != (number,):
                    continue
                k = (
                    slice(None)
                    if options.batched
                    else slice(number * self.depth, (number + 1) * self.depth)
                )
                n = (
                    slice(None)
                    if options.batched
                    else slice(number * options.columns, (number + 1) * options.columns)
                )
                pieces = {**view}
                if "other" in pieces:
                    pieces["other"] = pieces["other"][:, n]
                calls.append(self._call(part, a[index][:, k], out[index][:, n], pieces, quantize))
        return calls

    def _extras(self, a, out, row_scale, row_zero_point, residual) -> dict[str, np.ndarray]:
        """What kernels take for this call alone, besides `a` and `out`: checked, and made contiguous for rows."""
        output, rows = self.output, a.shape[:-1]
        found: dict[str, np.ndarray] = {}
        given = self._options.row_zero == "given"
        for name, value, wanted in (
            ("row_scale", row_scale, output.row_scale),
            ("row_zero_point", row_zero_point, given),
            ("residual", residual, output.residual is not None),
        ):
            if (value is not None) != wanted:
                state = "needs" if wanted else "takes no"
                raise OperandError(f"{name}: this product {state} {name}")
        if row_scale is not None:
            found["row_scale"] = expect(array(row_scale, "row_scale"), "row_scale", "float32", rows)
            if found["row_scale"].size:
                positive_scale(found["row_scale"], "row_scale")
        if row_zero_point is not None:
            zeros = array(row_zero_point, "row_zero_point")
            found["row_zero"] = expect(zeros, "row_zero_point", "int32", rows)
            limits = np.iinfo(self._in)
            ends = zeros.min(initial=limits.max), zeros.max(initial=limits.min)
            if ends[0] < limits.min or ends[1] > limits.max:
                raise OperandError(
                    f"row_zero_point: expected {limits.min} to {limits.max}, got {ends[0]} to {ends[1]}"
                )
        if residual is not None and output.residual is not None:
            other = array(residual, "residual")
            wanted = output.residual.dtype
            kinds = (wanted, "uint16") if wanted == "bfloat16" else wanted
            expect(other, "residual", kinds, out.shape)
            if other.size and (
                _scattered(other) or (other.shape[-2] > 1 and other.strides[-2] <= 0)
            ):
                raise OperandError(
                    f"residual: expected adjacent elements in rows, got strides {other.strides}"
                )
            found["other"] = other.view(np.uint16) if wanted == "bfloat16" else other
        for name in ("row_scale", "row_zero"):
            if name in found:
                found[name] = np.ascontiguousarray(found[name])
        apart(out, a, *([found["other"]] if "other" in found else []))
        if self._ranged:
            found.update(_range_of(a))
        return found

    def _call(self, part: ProductPart, a, out, pieces: dict[str, np.ndarray], quantize) -> Call:
        transposed = _is_transposed(a)
        strided = not all(
            x.flags.c_contiguous for x in (out, *pieces.values()) if x.ndim == 2
        ) or not (transposed or a.flags.c_contiguous)
        variant = self._variant(transposed, strided)
        if self.output.dtype == "bfloat16":
            out = out.view(np.uint16)
        arrays: list[np.ndarray] = [_columns_of(a) if transposed else a, part.packed]
        axes: list[int | None] = [1 if transposed else 0, None]
        for given in (part.places, quantize):
            if given is not None:
                arrays.append(given)
                axes.append(None)
        for name in variant.names:
            by_rows = name in ("row_zero", "row_scale", "other")
            arrays.append(pieces[name] if by_rows else part.arrays[name])
            axes.append(0 if by_rows else None)
        arrays.append(out)
        axes.append(0)
        rows = a.shape[0]
        work = rows * self.depth * self._options.columns
        call = Call(variant.library, variant.symbols, arrays, axes, variant.block, work)
        call.set_rows(rows, work)
        return call

    def _variant(self, transposed: bool, strided: bool) -> _Variant:
        found = self._variants.get((transposed, strided))
        if found is None:
            found = _Variant(self._options, transposed, strided)
            self._variants[transposed, strided] = found
        return found


class _Variant:
    """The compiled functions for one layout of the operands."""

    def __init__(self, options: ProductOptions, transposed: bool, strided: bool) -> None:
        packing, target = options.packing, options.target
        dynamic = options.quantize is not None and options.quantize.range == "row"
        form = {
            "depth": options.depth,
            "columns": options.columns,
            "in_dtype": options.in_dtype,
            "staged": gemm_staged(packing, options.in_dtype, transposed),
            "transposed": transposed,
            "dynamic": dynamic,
            "paired": paired_panels(packing.panels) if target.paired else 0,
        }
        output = options.output_form()
        configs = default_gemm_configs(packing, target)
        self.symbols = [f"rows{config.rows}" for config in configs]
        self.names = stage_arguments(output, dynamic)
        wide = options.depth * (2 if form["staged"] else 1) + 4 * options.columns
        self.block = max(1, BLOCK_BYTES // (wide * configs[-1].rows))

        def make():
            from lowgemm import schedules, topi
            from lowgemm.ops._buffers import strided_rows

            functions = {}
            for symbol, config in dict(zip(self.symbols, configs, strict=True)).items():
                stage = topi.OutputForm(**output)
                spec = topi.GemmForm(config.rows, output=stage, fewer=target.tiles, **form)
                func = topi.qgemm(spec, packing)
                if strided:
                    func = strided_rows(
                        func, {"other", "dst"} | (set() if transposed else {"data"})
                    )
                functions[symbol] = schedules.schedule_qgemm(func, packing, spec, target, config)
            return functions

        params = {**form, "output": output, "panels": packing.panels, "strided": strided}
        self.library: Library = kernels("qgemm", params, target, make)


def pack_gemm(
    b: Any,
    *,
    a_dtype: str = "uint8",
    a_zero_point: int | Literal["row"] = 0,
    b_zero_point: Any = 0,
    groups: int = 1,
    transposed: bool = False,
    quantize: Quantize | None = None,
    output: Output | None = None,
    target: str | CpuTarget = "host",
) -> PackedGemm:
    """Pack the right matrix of products a @ b.

        sum_k (a[i, k] - a_zero_point) * (b[k, j] - b_zero_point[j])

    in exact 32-bit integers (ONNX's MatMulInteger, FBGEMM's `fbgemmPacked` without its saturation), then the output
    stage. Kernels are compiled when they are first called, for this depth and these columns and for any rows.

    Args:
        b: int8 or uint8 `(groups * depth, columns)`, or, transposed, `(groups * columns, depth)`; with an axis more in
            front for a batch of left matrices, each with its own.
        a_dtype: uint8 or int8; with `quantize`, float32 is what calls take.
        a_zero_point: the code of 0 in the left matrix; "row": each call gives one for each row.
        b_zero_point: of the right matrix: a scalar, one for each group, or one for each of all `groups * columns`.
        groups: the left matrix's columns are cut into so many parts, each multiplied with its part of `b`; the results
            stand side by side.
        transposed: how `b` is given.
        quantize: take float32 and quantize it.
        output: what becomes of the sums; without it they are returned.
        target: "host", or a level's name.

    Returns:
        What multiplies; the left matrix of a call is `(..., rows, groups * depth)`.

    Raises:
        OperandError: an argument does not fit; also if the depth is so large that a sum could exceed 32 bits.
        TargetError: no such level, or this CPU lacks it.
    """
    instance("output", output, Output)
    instance("quantize", quantize, Quantize)
    output = output or Output()
    b = array(b, "b")
    expect(b, "b", ("int8", "uint8"))
    matrices = right_matrices(b, groups, transposed)
    batched = b.ndim == 3
    one_of("a_dtype", a_dtype, EIGHT_BIT)
    depth, columns = matrices[0].shape
    row_zero, point = left_zero_point(a_dtype, a_zero_point, quantize)
    zeros = weight_zeros(b_zero_point, b.dtype, columns, len(matrices))
    check_depth(depth, a_dtype, point, zeros)
    # int8, whose zero points are `zeros`.
    matrices = [
        (m.astype(np.int16) - (128 if b.dtype == np.uint8 else 0)).astype(np.int8) for m in matrices
    ]

    def fits(view: CpuTarget) -> bool:
        packing = gemm_packing(depth, columns, view, a_dtype)
        return all(packing.sums_fit(packed_columns(packing, w)) for w in matrices)

    chosen = summing_target(level(target), fits)
    chosen, packing, packed = _packed(matrices, chosen, a_dtype)
    options = checked_options(
        depth=depth,
        columns=columns,
        in_dtype="float32" if quantize else a_dtype,
        quantize=quantize,
        row_zero=row_zero,
        weight_zero=bool(zeros.any()),
        batched=batched,
        packing=packing,
        output=output,
        target=chosen,
    )
    flip = (
        128 if a_dtype == "int8" and options.packing.layout.lhs == "uint8" and not quantize else 0
    )
    parts = []
    for number, w in enumerate(matrices):
        slot = (0, 1) if batched else (number, groups)
        own = zeros[number]
        sums = w.sum(0, dtype=np.int64)
        # Rows' own zero points come as they are; that the kernel's operand is moved by `flip` goes into the offset.
        moved = (point or 0) + flip
        arrays = column_arrays(options, sums, own, moved, slot)
        weight, places = packed[number]
        parts.append(ProductPart(weight, sums, own, moved, slot, arrays, places))
    return PackedGemm(parts, options)


def _packed(
    matrices: list[np.ndarray], target: CpuTarget, a_dtype: str
) -> tuple[CpuTarget, ConvPacking, list[tuple[np.ndarray, np.ndarray | None]]]:
    """The target as `matrices` int8 `(depth, columns)` let kernels use it, their layout, and packed weights.

    With each weight, where its words lie, if they are summed in pairs.
    """
    depth, columns = matrices[0].shape

    def packing_for(view: CpuTarget) -> ConvPacking:
        return gemm_packing(depth, columns, view, a_dtype)

    if target.summed == 1:
        view = target.summing(1, paired=True)
        packing = packing_for(view)
        vectors = paired_panels(packing.panels)
        packed = [packed_columns(packing, w) for w in matrices]
        if all(packing.pairs_pay(each, vectors) for each in packed):
            found = [packing.pair(each, vectors, alike=True) for each in packed]
            if all(enough_pairs(places) for _, places in found):
                return view, packing, [(aligned(weight), places) for weight, places in found]
    packing = packing_for(target)
    return target, packing, [(packed_columns(packing, w), None) for w in matrices]


def _range_of(a: np.ndarray) -> dict[str, np.ndarray]:
    """What kernels take for a matrix that is quantized by its own range.

    Raises:
        OperandError: an element is not finite.
    """
    ends = (float(a.min()), float(a.max())) if a.size else (0.0, 0.0)
    if not (math.isfinite(ends[0]) and math.isfinite(ends[1])):
        raise OperandError(f"a: expected finite elements, got the range {ends}")
    found = choose_qparams(*ends)
    rows = a.shape[:-1]
    return {
        "quantize": _quantizing(found.scale, found.zero_point),
        "row_zero": np.full(rows, found.zero_point, np.int32),
        "row_scale": np.full(rows, found.scale, np.float32),
    }


def _quantizing(scale: float, zero_point: int) -> np.ndarray:
    return np.array([np.float32(1) / np.float32(scale), zero_point], np.float32)


def _scattered(matrix: np.ndarray) -> bool:
    """Whether the elements of a row are not adjacent."""
    return matrix.shape[-1] > 1 and matrix.strides[-1] != matrix.itemsize


def _is_transposed(a: np.ndarray) -> bool:
    """Whether it is the columns of `(rows, depth)` whose elements are adjacent.

    Raises:
        OperandError: neither they are nor those of rows, or rows or columns do not follow one another in memory.
    """
    rows, depth = a.shape
    down, across = (stride // a.itemsize for stride in a.strides)
    if not rows or ((depth == 1 or across == 1) and (rows == 1 or down > 0)):
        return False
    if (rows == 1 or down == 1) and across >= rows:
        return True
    raise OperandError(f"a: expected adjacent elements in rows or columns, got strides {a.strides}")


def _columns_of(a: np.ndarray) -> np.ndarray:
    """The transpose, as `(depth, pitch)` with the pitch that memory has."""
    pitch, size = a.strides[1] // a.itemsize, a.itemsize
    return np.lib.stride_tricks.as_strided(
        a, (a.shape[1], pitch), (pitch * size, size), writeable=False
    )
