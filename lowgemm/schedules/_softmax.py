"""The softmax of rows, with an exponential that is computed in vectors."""

import math

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._vectors import fold, load, register, store
from lowgemm.topi import exponential, to_float

# Lanes of the partial sums: the same on every level, so that all give the same bits.
_LANES = 16
_GRAIN = 4096


def schedule_softmax(rows: int, columns: int, codes: str | None = None) -> tvm.tirx.PrimFunc:
    """dst[r, c] = exp(x[r, c] - max x[r]) / sum of them, rows in parallel.

    Arguments: x float32 `(rows, columns)`, or `codes` of it, of which differences are exact: then these are multiplied
    by the next argument, step float32 `(1,)`, their scale; dst float32 `(rows, columns)`.
    """
    with _vectors.function() as made:
        x = _vectors.buffer_argument("x", (rows, columns), codes or "float32")
        step = _vectors.buffer_argument("step", (1,), "float32") if codes else None
        dst = _vectors.buffer_argument("dst", (rows, columns), "float32")
        block = max(1, min(rows, _GRAIN // columns))
        while rows % block:
            block -= 1
        loop = build.parallel if rows > block else build.serial
        with loop(rows // block) as part, build.serial(block) as inside:
            _row(x, step, dst, part * block + inside, columns)
    return made()


def _row(x, step, dst, row, columns: int) -> None:
    whole, dtype = columns // _LANES * _LANES, x.dtype
    largest, total = register(_LANES, dtype), register(_LANES, "float32")
    last, rest, scale = register(1, dtype), register(1, "float32"), register(1, "float32")

    def every(body) -> None:
        """Call `body(start, lanes)` for the vectors of the row, then for what is left, one by one."""
        if whole:
            with build.serial(whole // _LANES) as v:
                body(v * _LANES, _LANES)
        if columns > whole:
            with build.serial(whole, columns) as i:
                body(i, 1)

    def alike(value, lanes: int):
        return tirx.Broadcast(value, lanes) if lanes > 1 else value

    def above(value, lanes: int):
        """By how much `value` is above the largest, which is in `scale`."""
        difference = to_float(value) - alike(scale[0], lanes)
        return difference if step is None else difference * alike(step[0], lanes)

    def see(start, lanes: int) -> None:
        into = largest if lanes > 1 else last
        seen = tirx.max(load(into, [0], lanes), load(x, [row, start], lanes))
        store(into, seen, [0], lanes)

    def raise_(start, lanes: int) -> None:
        into = total if lanes > 1 else rest
        value = build.Bind(exponential(above(load(x, [row, start], lanes), lanes)))
        store(dst, value, [row, start], lanes)
        store(into, load(into, [0], lanes) + value, [0], lanes)

    def divide(start, lanes: int) -> None:
        factor = alike(scale[0], lanes)
        store(dst, load(dst, [row, start], lanes) * factor, [row, start], lanes)

    least = tirx.const(-math.inf, dtype) if step is None else tirx.min_value(dtype)
    store(largest, alike(least, _LANES), [0], _LANES)
    store(last, least, [0], 1)
    every(see)
    top = tirx.max(fold(load(largest, [0], _LANES), _LANES, tirx.max), last[0])
    store(scale, to_float(top), [0], 1)
    zero = tirx.const(0.0, "float32")
    store(total, alike(zero, _LANES), [0], _LANES)
    store(rest, zero, [0], 1)
    every(raise_)
    summed = fold(load(total, [0], _LANES), _LANES, lambda a, b: a + b) + rest[0]
    store(scale, tirx.const(1.0, "float32") / summed, [0], 1)
    every(divide)
