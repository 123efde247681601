"""Schedules of pointwise operators over arrays of any size."""

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._vectors import GRAIN, load, store, vectors
from lowgemm.targets import CpuTarget
from lowgemm.topi import Pointwise


def pointwise_width(target: CpuTarget) -> int:
    """How many elements one vector step takes: four vectors of 32-bit values, which narrow to one of bytes."""
    return 4 * target.lanes


def schedule_pointwise(op: Pointwise, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """A function over arrays of any size; its form follows from the axes of the parameters.

    - All parameters for all elements: src `(n,)`, the parameters as numbers, dst `(n,)`.
    - Some for each column, none for a row: src `(n,)`, dst `(n,)`, and a column's parameters `(period + width,)` with
      `width = pointwise_width(target)`: those of `period` columns and, so that a vector may begin at any of them, again
      from the first on. `period` is at least `width`; n need not be its multiple.
    - Some for each row: src `(rows, columns)`, a row's parameters `(channels,)` of which row r takes r % channels, a
      column's `(columns,)`, dst `(rows, columns)`.
    """
    axes = {param.axis for param in op.params}
    width = pointwise_width(target)
    if "row" in axes:
        return _rows(op, width)
    return _periodic(op, width) if "column" in axes else _flat(op, width)


def _flat(op: Pointwise, width: int) -> tvm.tirx.PrimFunc:
    n = _vectors.size("n")
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (n,), op.source)
        params = [_vectors.scalar_argument(p.name, p.dtype) for p in op.params]
        dst = _vectors.buffer_argument("dst", (n,), op.result)

        def body(start, lanes: int) -> None:
            store(dst, op.value(load(src, [start], lanes), *params), [start], lanes)

        with build.parallel((n + (GRAIN - 1)) // GRAIN) as task:
            begin = task * GRAIN
            vectors(begin, tirx.min(n - begin, GRAIN), n, width, body)
    return made()


def _periodic(op: Pointwise, width: int) -> tvm.tirx.PrimFunc:
    n, extended = _vectors.size("n"), _vectors.size("extended")
    period = extended - width
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (n,), op.source)
        params = [
            _vectors.buffer_argument(p.name, (extended,), p.dtype)
            if p.axis == "column"
            else _vectors.scalar_argument(p.name, p.dtype)
            for p in op.params
        ]
        dst = _vectors.buffer_argument("dst", (n,), op.result)

        def compute(start, column, lanes: int) -> None:
            values = [
                load(param, [column], lanes) if p.axis == "column" else param
                for p, param in zip(op.params, params, strict=True)
            ]
            store(dst, op.value(load(src, [start], lanes), *values), [start], lanes)

        with build.If(n >= width):
            with build.Then():
                with build.parallel((n + (GRAIN - 1)) // GRAIN) as task:
                    begin = task * GRAIN
                    column = _vectors.register(1, "int64")
                    build.buffer_store(column, begin % period, [0])
                    with build.serial(tirx.min(n - begin, GRAIN) // width) as v:
                        compute(begin + v * width, column[0], width)
                        after = column[0] + width
                        wrapped = tirx.Select(after >= period, after - period, after)
                        build.buffer_store(column, wrapped, [0])
                with build.If(n % width != 0), build.Then():
                    compute(n - width, (n - width) % period, width)
            with build.Else(), build.serial(n) as i:
                compute(i, i, 1)
    return made()


def _rows(op: Pointwise, width: int) -> tvm.tirx.PrimFunc:
    rows, columns, channels = map(_vectors.size, ("rows", "columns", "channels"))
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (rows, columns), op.source)
        lengths = {"row": channels, "column": columns}
        params = [
            _vectors.scalar_argument(p.name, p.dtype)
            if p.axis == "all"
            else _vectors.buffer_argument(p.name, (lengths[p.axis],), p.dtype)
            for p in op.params
        ]
        dst = _vectors.buffer_argument("dst", (rows, columns), op.result)
        blocks = build.Bind((columns + (GRAIN - 1)) // GRAIN)
        with build.parallel(rows * blocks) as task:
            row = build.Bind(task // blocks)
            begin = build.Bind(task % blocks * GRAIN)
            channel = build.Bind(row % channels)

            def compute(start, lanes: int) -> None:
                at = {"row": ([channel], 1), "column": ([start], lanes)}
                values = [
                    param if p.axis == "all" else load(param, *at[p.axis])
                    for p, param in zip(op.params, params, strict=True)
                ]
                value = op.value(load(src, [row, start], lanes), *values)
                store(dst, value, [row, start], lanes)

            vectors(begin, tirx.min(columns - begin, GRAIN), columns, width, compute)
    return made()
