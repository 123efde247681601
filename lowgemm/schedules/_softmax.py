"""The softmax of rows, with an exponential that is computed in vectors."""

import math

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._vectors import fold, load, register, store
from lowgemm.topi import exponential

# Lanes of the partial sums: the same on every level, so that all give the same bits.
_LANES = 16
_GRAIN = 4096


def schedule_softmax(rows: int, columns: int) -> tvm.tirx.PrimFunc:
    """dst[r, c] = exp(x[r, c] - max x[r]) / sum of them, rows in parallel.

    Arguments: x, dst float32 `(rows, columns)`.
    """
    with _vectors.function() as made:
        x = _vectors.buffer_argument("x", (rows, columns), "float32")
        dst = _vectors.buffer_argument("dst", (rows, columns), "float32")
        block = max(1, min(rows, _GRAIN // columns))
        while rows % block:
            block -= 1
        loop = build.parallel if rows > block else build.serial
        with loop(rows // block) as part, build.serial(block) as inside:
            _row(x, dst, part * block + inside, columns)
    return made()


def _row(x, dst, row, columns: int) -> None:
    whole = columns // _LANES * _LANES
    largest, total = register(_LANES, "float32"), register(_LANES, "float32")
    rest, scale = register(1, "float32"), register(1, "float32")

    def every(body) -> None:
        """Call `body(start, lanes)` for the vectors of the row, then for what is left, one by one."""
        if whole:
            with build.serial(whole // _LANES) as v:
                body(v * _LANES, _LANES)
        if columns > whole:
            with build.serial(whole, columns) as i:
                body(i, 1)

    def fill(buffer, value: float) -> None:
        store(buffer, tirx.Broadcast(tirx.const(value, "float32"), _LANES), [0], _LANES)

    def see(start, lanes: int) -> None:
        into = largest if lanes > 1 else rest
        seen = tirx.max(load(into, [0], lanes), load(x, [row, start], lanes))
        store(into, seen, [0], lanes)

    def raise_(start, lanes: int) -> None:
        into = total if lanes > 1 else rest
        top = scale[0] if lanes == 1 else tirx.Broadcast(scale[0], lanes)
        value = build.Bind(exponential(load(x, [row, start], lanes) - top))
        store(dst, value, [row, start], lanes)
        store(into, load(into, [0], lanes) + value, [0], lanes)

    def divide(start, lanes: int) -> None:
        factor = scale[0] if lanes == 1 else tirx.Broadcast(scale[0], lanes)
        store(dst, load(dst, [row, start], lanes) * factor, [row, start], lanes)

    fill(largest, -math.inf)
    store(rest, tirx.const(-math.inf, "float32"), [0], 1)
    every(see)
    store(scale, tirx.max(fold(load(largest, [0], _LANES), _LANES, tirx.max), rest[0]), [0], 1)
    fill(total, 0.0)
    store(rest, tirx.const(0.0, "float32"), [0], 1)
    every(raise_)
    summed = fold(load(total, [0], _LANES), _LANES, lambda a, b: a + b) + rest[0]
    store(scale, tirx.const(1.0, "float32") / summed, [0], 1)
    every(divide)
