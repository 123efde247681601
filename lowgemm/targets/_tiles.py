"""AMX tiles: what one holds, and the operating system's permission to use them."""

import ctypes
import functools
import os

from lowgemm.errors import TargetError

# A tile is at most so many rows of so many bytes, or of so many 32-bit sums.
TILE_ROWS, TILE_BYTES, TILE_COLUMNS = 16, 64, 16

# Linux on x86-64: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA), Documentation/arch/x86/xstate.rst.
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def permit_tiles() -> None:
    """Ask for the use of AMX tiles, for this process and its children; kernels do not ask.

    Linux keeps 8 KB more for each thread that uses them. Once granted, it stays so until the process ends.

    Raises:
        TargetError: the operating system refuses, with its reason.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = map(ctypes.c_long, (_ARCH_PRCTL, _REQUEST, _TILE_DATA))
    if libc.syscall(*numbers) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise TargetError(f"target amx_int8: the operating system refuses AMX tiles: {reason}")
