"""Pointwise kernels whose parameters lie along an axis."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from lowgemm.ops._arrays import OperandError, integer
from lowgemm.ops._prepared import Prepared, resolve

# An element of a pointwise operator takes as long as some 60 multiply-accumulates of a matrix product.
WORK = 60
# Up to so many positions are kept.
_SHORT = 256


def pointwise(op: str, key, **params: Any) -> Prepared:
    """The kernel of the pointwise operator `topi.<op>(**params)` for a `target_key`."""
    target = resolve(key)

    def make():
        from lowgemm import schedules, topi

        return schedules.schedule_pointwise(getattr(topi, op)(**params), target)

    return Prepared(op, params, target, make)


def along(
    kernel: Callable[[str], Prepared],
    x: np.ndarray,
    params: tuple[Any, ...],
    axis: int | None,
    out: np.ndarray,
    columns: tuple[np.ndarray, ...] = (),
    numbers: tuple[float, ...] = (),
) -> None:
    """Write to `out` what a pointwise operator makes of `x`.

    Args:
        kernel: gives the kernel with parameters for "all", for each "row" or for each "column"
            (`schedules.schedule_pointwise` has the forms).
        params: numbers, or arrays of one value for every index of `axis`, every group of neighbouring ones, or all.
        columns: parameters of one value for every index of the last axis, `(x.shape[-1],)`.
        numbers: parameters for all elements.

    Raises:
        OperandError: `axis` does not fit the number of values.
    """
    if x.size == 0:
        return
    work = x.size * WORK
    count = 1
    for values in params:
        if type(values) is np.ndarray and values.size > count:
            count = values.size
    if count == 1:
        singles = [p.item() if type(p) is np.ndarray else p for p in params]
        run = kernel("all")
        held = _repeated(columns, run, x.shape[-1]) if columns else ()
        run(work, x.reshape(-1), *singles, *held, *numbers, out.reshape(-1))
        return
    if axis is None:
        raise OperandError(f"axis: expected one of {x.ndim} axes for {count} values, got None")
    axis = integer(axis, "axis", -x.ndim, x.ndim - 1) % x.ndim
    size, inner = x.shape[axis], prod(x.shape[axis + 1 :])
    if size % count:
        raise OperandError(f"axis: expected a size that {count} values divide, got {size}")
    if columns and axis < x.ndim - 2:
        raise OperandError(f"bias: expected values along one of the last two axes, got axis {axis}")
    spread = [_spread(p, count, size) for p in params]
    run = kernel("row" if inner > 1 else "column")
    if inner > 1 and (inner >= _width(run) or columns):
        shape = (x.size // inner, inner)
        run(work, x.reshape(shape), *spread, *columns, *numbers, out.reshape(shape))
        return
    if inner > 1:  # rows too short for a vector: a parameter for each of their elements
        spread = [np.repeat(p, inner) for p in spread]
        run = kernel("column")
    held = _repeated((*spread, *columns), run, size * inner)
    run(work, x.reshape(-1), *held, *numbers, out.reshape(-1))


def _spread(values: Any, count: int, size: int) -> np.ndarray:
    """One value, or `count` of them, as `size`."""
    if type(values) is not np.ndarray:
        return np.full(size, values, np.float32)
    each = np.ascontiguousarray(values).reshape(-1)
    if each.size not in (1, count):
        raise OperandError(f"scale, zero_point: expected 1 or {count} values, got {each.size}")
    return each if each.size == size else np.repeat(each, size // each.size)


def _repeated(values: tuple[np.ndarray, ...], run: Prepared, columns: int) -> list[np.ndarray]:
    """Parameters of `columns` columns, or fewer that repeat, as often as a vector needs, and once more for a vector."""
    width = _width(run)
    size = -(-max(width, columns) // columns) * columns + width
    return [_continued(value, size) for value in values]


def _continued(value: np.ndarray, size: int) -> np.ndarray:
    """`value`, and again, `size` numbers; `np.resize`, in less time."""
    if 2 * value.size >= size:
        return np.concatenate((value, value[: size - value.size]))
    return value[_around(value.size, size)] if size <= _SHORT else np.resize(value, size)


@functools.lru_cache(64)
def _around(count: int, size: int) -> np.ndarray:
    """0, 1, ... up to `count`, and again, `size` numbers."""
    return np.arange(size) % count


def _width(run: Prepared) -> int:
    """`schedules.pointwise_width`, without TVM."""
    return 4 * run.target.lanes
