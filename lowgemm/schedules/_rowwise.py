"""Schedules of row-wise formats, and of the range of an array: reductions over rows of any length."""

from collections.abc import Callable

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._pointwise import pointwise_width
from lowgemm.schedules._vectors import GRAIN, fold, load, register, store, vectors, when
from lowgemm.targets import CpuTarget
from lowgemm.topi import RowFormat, is_nan, narrowed, stored, widened


def schedule_quantize_rows(
    form: RowFormat, source: str, ranged: bool, target: CpuTarget
) -> tvm.tirx.PrimFunc:
    """`quant.quantize_rows` of rows of any number and length, rows in parallel.

    Arguments in order: src `(rows, columns)` of the float type `source`; min_max `(rows, 2)` of the same if `ranged`;
    dst uint8 `(rows, row_bytes)`. The format's scale and bias are last.
    """
    width = pointwise_width(target)
    rows, columns, row_bytes = map(_vectors.size, ("rows", "columns", "row_bytes"))
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (rows, columns), stored(source))
        known = None
        if ranged:
            known = _vectors.buffer_argument("min_max", (rows, 2), stored(source))
        dst = _vectors.buffer_argument("dst", (rows, row_bytes), "uint8")
        with build.parallel(rows) as row:

            def elements(start, lanes: int):
                return widened(load(src, [row, start], lanes), source)

            if known is None:
                low, high = _range(elements, tirx.const(0, "int64"), columns, columns, width)
            else:
                low, high = (build.Bind(widened(known[row, i], source)) for i in range(2))
            scale, bias, inverse = map(build.Bind, form.of_range(low, high))

            def body(start, lanes: int) -> None:
                values = (elements(start, lanes) - bias) * inverse
                at = [row, form.code_byte(start)]
                store(dst, form.packed(values, lanes), at, lanes // form.per_byte)

            begin = tirx.const(0, "int64")
            vectors(begin, columns, columns, width, body, form.per_byte)
            behind = form.code_byte(columns)
            store(dst, form.param_bytes_of(scale, bias), [row, behind], form.param_bytes)
    return made()


def schedule_dequantize_rows(form: RowFormat, result: str, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """`quant.dequantize_rows` of rows of any number and length, rows in parallel.

    Arguments in order: src uint8 `(rows, row_bytes)`; dst `(rows, columns)` of the float type `result`.
    """
    width = pointwise_width(target)
    rows, columns, row_bytes = map(_vectors.size, ("rows", "columns", "row_bytes"))
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (rows, row_bytes), "uint8")
        dst = _vectors.buffer_argument("dst", (rows, columns), stored(result))
        with build.parallel(rows) as row:

            def byte(offset, count: int):
                return load(src, [row, offset], count)

            scale, bias = map(build.Bind, form.scale_and_bias(byte, columns))

            def body(start, lanes: int) -> None:
                real = form.real(form.codes(byte, start, lanes), scale, bias)
                store(dst, narrowed(real, result), [row, start], lanes)

            vectors(tirx.const(0, "int64"), columns, columns, width, body)
    return made()


def schedule_min_max(target: CpuTarget) -> tvm.tirx.PrimFunc:
    """The range of an array of at least one element, blocks in parallel.

    Arguments in order: src float32 `(n,)`; dst float32 `(3,)`: the least element, the greatest, and 1 if there is a NaN
    (then the others have no meaning), else 0.
    """
    width = pointwise_width(target)
    n = _vectors.size("n")
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (n,), "float32")
        dst = _vectors.buffer_argument("dst", (3,), "float32")
        blocks = build.Bind((n + (GRAIN - 1)) // GRAIN)
        found = build.alloc_buffer((blocks, 3), "float32", scope="global")

        def elements(start, lanes: int):
            return load(src, [start], lanes)

        with build.parallel(blocks) as block:
            begin = build.Bind(block * GRAIN)
            count = build.Bind(tirx.min(n - begin, GRAIN))
            for i, value in enumerate(_range(elements, begin, count, n, width, nan=True)):
                build.buffer_store(found, value, [block, i])
        for i in range(3):
            build.buffer_store(dst, found[0, i], [i])
        with build.serial(blocks) as block:
            for i, combine in enumerate((tirx.min, tirx.max, tirx.max)):
                build.buffer_store(dst, combine(dst[i], found[block, i]), [i])
    return made()


def _range(
    elements: Callable, begin, count, whole, width: int, nan: bool = False
) -> list[tirx.Expr]:
    """The least and the greatest of `elements(start, lanes)` in `[begin, begin + count)`, a part of `[0, whole)`.

    With `nan` also 1.0 if there is a NaN, else 0.0.
    """
    names = ("low", "high", "nan") if nan else ("low", "high")
    combine = {"low": tirx.min, "high": tirx.max, "nan": tirx.max}
    results = {name: register(1, "float32") for name in names}

    def values(start, lanes: int) -> dict[str, tirx.Expr]:
        x = elements(start, lanes)
        found = {"low": x, "high": x}
        if nan:
            found["nan"] = is_nan(x).astype(x.ty.dtype)
        return found

    def reduce(lanes: int) -> None:
        held = {name: register(lanes, "float32") for name in names}

        def body(start) -> None:
            for name, value in values(start, lanes).items():
                store(held[name], combine[name](load(held[name], [0], lanes), value), [0], lanes)

        for name, value in values(begin + tirx.min(count - lanes, 0), lanes).items():
            store(held[name], value, [0], lanes)
        with build.serial(1, count // lanes) as v:
            body(begin + v * lanes)
        if lanes > 1:
            when(count % lanes != 0, lambda: body(begin + count - lanes))
        for name in names:
            total = fold(load(held[name], [0], lanes), lanes, combine[name])
            build.buffer_store(results[name], total, [0])

    when(whole >= width, lambda: reduce(width), lambda: reduce(1))
    return [build.Bind(results[name][0]) for name in names]
