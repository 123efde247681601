"""Calls of compiled functions on arrays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lowgemm.errors import LowgemmError
from lowgemm.ops._arrays import integer
from lowgemm.ops._library import Library, runtime

# A kernel of fewer multiply-accumulates, or as much other work, takes some 2 us: no second thread is worth waking.
SERIAL_WORK = 1_000_000

_TENSOR, _INT, _FLOAT = 7, 1, 3  # TVM's type indices
# By numpy's kinds; ml_dtypes' bfloat16 is of the kind that it does not know.
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6, "V": 4}


class KernelError(LowgemmError):
    """A kernel failed while it ran: there was no memory for its temporary buffers."""


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Any(ctypes.Structure):
    _fields_ = [
        ("type_index", ctypes.c_int32),
        ("padding", ctypes.c_uint32),
        ("value", ctypes.c_int64),
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        ("kernels", ctypes.c_void_p),
        ("args", ctypes.c_void_p),
        ("row_bytes", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("block_tiles", ctypes.c_int64),
        ("count", ctypes.c_int32),
        ("tile", ctypes.c_int32),
        ("serial", ctypes.c_int32),
    ]


def address_of(array: np.ndarray) -> int:
    """Where the array's first element is."""
    try:  # a third of the time, but only for a writable, contiguous array with elements
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return array.__array_interface__["data"][0]


class Call:
    """One call, with its arguments described for the native side; made once, it can be run many times.

    Args:
        library: the compiled functions.
        symbols: the function, or, for a family of row tiles, those for 1, 2, ... rows.
        args: arrays, ints and floats in the function's order. They are kept alive. A strided array must be described
            as such to the function (`strided_rows`).
        rows: for a family: `rows[i]` is 0 where argument i has axis 0 for rows, which is `(tiles, tile)` for the
            functions, 1 where axis 1 is that of rows and the functions see the matrix as it is, else None.
        block: tiles that one thread takes at a time.
        work: multiply-accumulates, or as much; too few are not shared among threads.
    """

    def __init__(
        self,
        library: Library,
        symbols: str | Sequence[str],
        args: Sequence[np.ndarray | int | float],
        rows: Sequence[int | None] | None = None,
        block: int = 1,
        work: int = SERIAL_WORK,
    ) -> None:
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        self._runtime = runtime()
        self._run = self._runtime.run
        count = len(args)
        self._functions = library.functions(names)
        self._any = (_Any * count)()
        self._tensors = (_Tensor * count)()
        self._row_bytes = (ctypes.c_int64 * count)()
        self._sizes: dict[int, ctypes.Array] = {}
        self._numbers: dict[int, Any] = {}
        self._kept = [*args, library]
        number = 0
        for index, value in enumerate(args):
            if isinstance(value, np.ndarray):
                axis = rows[index] if rows is not None else None
                if axis is not None:
                    number = value.shape[axis]
                    self._row_bytes[index] = _row_bytes(value) if axis == 0 else -value.itemsize
                self._describe(index, value, axis == 0)
            elif isinstance(value, float):
                self._any[index] = _Any(_FLOAT, 0, _bits(value))
            else:
                self._any[index] = _Any(_INT, 0, value)
        self._call = _Call(
            ctypes.addressof(self._functions),
            ctypes.addressof(self._any),
            ctypes.addressof(self._row_bytes),
            number,
            block,
            count,
            len(names) if rows is not None else 0,
            work < SERIAL_WORK,
        )
        self._address = ctypes.addressof(self._call)
        self.last = count - 1

    def _describe(self, index: int, array: np.ndarray, by_rows: bool) -> None:
        shape = (1, *array.shape) if by_rows else array.shape
        size = array.itemsize
        sizes = (ctypes.c_int64 * (2 * len(shape)))(*shape)
        strides = 0
        if not array.flags.c_contiguous:
            inner = [s // size for s in array.strides]
            if array.shape[-1] == 1:
                inner[-1] = 1  # numpy leaves anything there
            sizes[len(shape) :] = [0, *inner] if by_rows else inner
            strides = ctypes.addressof(sizes) + 8 * len(shape)
        kind = array.dtype
        self._tensors[index] = _Tensor(
            address_of(array),
            1,
            0,
            len(shape),
            _CODES[kind.kind],
            size * 8,
            1,
            ctypes.addressof(sizes),
            strides,
            0,
        )
        self._any[index] = _Any(_TENSOR, 0, ctypes.addressof(self._tensors[index]))
        self._sizes[index] = sizes

    def rebind(self, index: int, array: np.ndarray) -> None:
        """Let argument `index` be `array`, of the same dtype, shape (but for rows) and strides as the one before.

        The caller keeps it alive.
        """
        self._tensors[index].data = address_of(array)

    def point(self, index: int, address: int) -> None:
        """Let argument `index` begin at `address`; else as `rebind`."""
        self._tensors[index].data = address

    def reshape(self, index: int, shape: tuple[int, ...]) -> None:
        """Let argument `index`, a contiguous array, have `shape`, of as many axes as before."""
        self._sizes[index][: len(shape)] = shape

    def set_number(self, index: int, value: float) -> None:
        """Let argument `index`, an int or a float, be `value`, of the same kind."""
        number = self._numbers.get(index)
        if number is None:
            kind: Any = ctypes.c_double if self._any[index].type_index == _FLOAT else ctypes.c_int64
            number = kind.from_buffer(self._any, index * ctypes.sizeof(_Any) + _Any.value.offset)
            self._numbers[index] = number
        number.value = value

    def release(self) -> None:
        """Keep no array alive any more; each is bound anew before the next run."""
        self._kept = self._kept[-1:]

    def set_rows(self, rows: int, work: int) -> None:
        """How many rows the arguments have from now on, and how much work that is."""
        self._call.rows = rows
        self._call.serial = work < SERIAL_WORK

    def __call__(self) -> None:
        """Run.

        Raises:
            KernelError: it ran out of memory.
        """
        if self._run(self._address) != 0:
            raise KernelError(self._runtime.message() or "a kernel failed in a worker thread")


def _row_bytes(array: np.ndarray) -> int:
    """From a row to the next. Of no rows or one, numpy leaves any stride; the array may be bound to more later."""
    if not array.flags.c_contiguous:
        return array.strides[0]
    return array.itemsize * math.prod(array.shape[1:])


def _bits(value: float) -> int:
    return ctypes.c_int64.from_buffer(ctypes.c_double(value)).value


def set_num_threads(threads: int) -> None:
    """Let calls from now on share their work among `threads` threads (at first: as many as the CPUs allowed).

    Raises:
        OperandError: `threads` is not a positive integer.
        ArtifactError: so many cannot be started.
    """
    runtime().set_threads(integer(threads, "threads", 1))


def get_num_threads() -> int:
    """Among how many threads a call shares its work."""
    return runtime().threads
