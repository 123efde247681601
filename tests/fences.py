"""Arrays with memory on one side that must not be touched: whoever reads or writes past an end gets a signal."""

import ctypes
import mmap
from collections.abc import Iterator

import numpy as np

_PAGE = mmap.PAGESIZE
_NO_ACCESS = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Fenced:
    """Pages between two that may be neither read nor written."""

    def __init__(self, size: int) -> None:
        self.pages = -(-size // _PAGE) * _PAGE or _PAGE
        self._map = mmap.mmap(-1, self.pages + 2 * _PAGE)
        raw = np.frombuffer(self._map, np.uint8)
        start = raw.__array_interface__["data"][0]
        for fence in (start, start + _PAGE + self.pages):
            if _libc.mprotect(fence, _PAGE, _NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = raw[_PAGE : _PAGE + self.pages]


def before_fence(value: np.ndarray) -> np.ndarray:
    """A copy of `value` that ends where a page begins that cannot be read."""
    fenced = _Fenced(value.nbytes)
    copy = fenced.bytes[fenced.pages - value.nbytes :].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def behind_fence(value: np.ndarray) -> np.ndarray:
    """A copy of `value` that begins where a page ends that cannot be read."""
    fenced = _Fenced(value.nbytes)
    copy = fenced.bytes[: value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def fenced(*values: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Copies of all `values` that end at a fence, then copies that begin at one."""
    for place in (before_fence, behind_fence):
        yield [place(value) for value in values]
