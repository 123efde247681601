"""Calls of products whose kernels take matrices with any number of rows and one weight packed in panels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lowgemm.ops._arrays import OperandError, apart, array, expect
from lowgemm.ops._call import Call
from lowgemm.ops._library import Library, runtime

# As many as the thread pool cuts a loop into (artifact/csrc/threads.c).
_TASKS_PER_THREAD = 4


class PanelProduct:
    """Kernels of the arguments `(a, *held, tasks, factor, out)`: `out = product of a + factor * out`.

    `tasks` says into how many parallel tasks to cut the work at least.

    Args:
        library: the kernel "main" for few rows (True), and for more.
        few: how many rows are few.
        adjacent: that kernels need the elements of each row of `a` side by side.
        held: what stays the same from call to call.
        dtypes: of `a`, `out` and `factor`.
        depth, columns: of the weight.
    """

    def __init__(
        self,
        library: Callable[[bool], Library],
        few: int,
        adjacent: bool,
        held: Sequence[np.ndarray | int],
        dtypes: tuple[str, str, type],
        depth: int,
        columns: int,
    ) -> None:
        self._library, self._few, self._held = library, few, tuple(held)
        self._adjacent = adjacent
        self._in, self._out = map(np.dtype, dtypes[:2])
        self._factor = dtypes[2]
        self._depth, self._columns = depth, columns
        self._work = depth * columns
        self._local = threading.local()

    def __call__(self, a: Any, out: Any, factor: float) -> np.ndarray:
        """Multiply; see `bind`."""
        a, out = self._checked(a, out, factor)
        if a.flags.c_contiguous and out.flags.c_contiguous:
            self._contiguous(a.reshape(-1, self._depth), out.reshape(-1, self._columns), factor)
        else:
            for call in self._calls(a, out, factor):
                call()
        return out

    def bind(self, a: Any, out: Any, factor: float) -> Callable[[], None]:
        """A function that multiplies what the arrays then hold. It is for one thread at a time.

        Args:
            a: `(..., rows, depth)`.
            out: `(..., rows, columns)`, the elements of each row adjacent; None for a new array, if `factor` is 0.

        Raises:
            OperandError: naming the argument, what was expected and what came.
        """
        a, out = self._checked(a, out, factor)
        if a.flags.c_contiguous and out.flags.c_contiguous:
            a, out = a.reshape(-1, self._depth), out.reshape(-1, self._columns)
        calls = self._calls(a, out, factor)
        if len(calls) == 1:
            return calls[0]

        def run() -> None:
            for call in calls:
                call()

        return run

    def _checked(self, a: Any, out: Any, factor: float) -> tuple[np.ndarray, np.ndarray]:
        a = array(a, "a")
        if a.dtype != self._in or a.ndim < 2 or a.shape[-1] != self._depth:
            expect(a, "a", self._in.name, ("...", "rows", self._depth))
        if self._adjacent:
            _check_rows(a, "a")
        shape = (*a.shape[:-1], self._columns)
        if out is None:
            if factor:
                raise OperandError("out: expected the array to add to")
            return a, np.empty(shape, self._out)
        out = array(out, "out")
        if out.dtype != self._out or out.shape != shape:
            expect(out, "out", self._out.name, shape)
        _check_rows(out, "out")
        if not out.flags.writeable:
            raise OperandError("out: expected an array that can be written to")
        apart(out, a)
        return a, out

    def _contiguous(self, a: np.ndarray, out: np.ndarray, factor: float) -> None:
        rows = len(a)
        if not rows:
            return
        few = "few" if rows <= self._few else "many"
        calls = self._local.__dict__
        call: Call | None = calls.get(few)
        if call is None:
            call = self._call(a, out, factor)
            call.release()
            calls[few] = call
        else:
            call.rebind(0, a)
            call.reshape(0, a.shape)
            call.rebind(call.last, out)
            call.reshape(call.last, out.shape)
            call.set_number(call.last - 2, _tasks())
            call.set_number(call.last - 1, factor)
            call.set_rows(0, rows * self._work)
        call()

    def _calls(self, a: np.ndarray, out: np.ndarray, factor: float) -> list[Call]:
        """One call for each matrix."""
        found = []
        for index in np.ndindex(a.shape[:-2]):
            if a.shape[-2]:
                found.append(self._call(a[index], out[index], factor))
        return found

    def _call(self, a: np.ndarray, out: np.ndarray, factor: float) -> Call:
        args = [a, *self._held, _tasks(), self._factor(factor), out]
        library = self._library(len(a) <= self._few)
        return Call(library, "main", args, work=len(a) * self._work)


def _tasks() -> int:
    threads = runtime().threads
    return 1 if threads == 1 else _TASKS_PER_THREAD * threads


def _check_rows(value: np.ndarray, name: str) -> None:
    if value.flags.c_contiguous or not value.size:
        return
    width, size = value.shape[-1], value.itemsize
    adjacent = width == 1 or value.strides[-1] == size
    apart = value.shape[-2] == 1 or value.strides[-2] >= width * size
    if not (adjacent and apart):
        raise OperandError(
            f"{name}: expected adjacent elements in rows, and rows one after the other, got strides {value.strides}"
        )
