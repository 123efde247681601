"""The C interface of a compiled model through ctypes, and the checks before a file is loaded."""

import ctypes
import mmap
import os
import struct
from pathlib import Path

from lowgemm.errors import ArtifactError

FORMAT = 1
_MARKER = b"lowgemm-format:"


class PortInfo(ctypes.Structure):
    """struct lowgemm_port"""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
    ]


class StepInfo(ctypes.Structure):
    """struct lowgemm_step_info"""

    _fields_ = [
        ("layer", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        ("macs", ctypes.c_uint64),
        ("nanoseconds", ctypes.c_uint64),
    ]


_FUNCTIONS = {
    "lowgemm_num_inputs": (ctypes.c_int, []),
    "lowgemm_num_outputs": (ctypes.c_int, []),
    "lowgemm_input": (ctypes.c_int, [ctypes.c_int, ctypes.POINTER(PortInfo)]),
    "lowgemm_output": (ctypes.c_int, [ctypes.c_int, ctypes.POINTER(PortInfo)]),
    "lowgemm_create": (ctypes.c_void_p, [ctypes.c_int]),
    "lowgemm_destroy": (None, [ctypes.c_void_p]),
    "lowgemm_run": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_void_p)],
    ),
    "lowgemm_last_error": (ctypes.c_char_p, []),
    "lowgemm_manifest": (ctypes.c_char_p, []),
    "lowgemm_level": (ctypes.c_char_p, [ctypes.c_void_p]),
    "lowgemm_threads": (ctypes.c_int, [ctypes.c_void_p]),
    "lowgemm_set_profiling": (None, [ctypes.c_void_p, ctypes.c_int]),
    "lowgemm_num_steps": (ctypes.c_int, [ctypes.c_void_p]),
    "lowgemm_step": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(StepInfo)]),
}


def open_library(path: Path) -> ctypes.CDLL:
    """Load the shared library at `path` and declare its functions.

    Raises:
        ArtifactError: there is no such file, it is damaged, or lowgemm did not make it, or a newer lowgemm did.
    """
    check_file(path)
    try:
        library = ctypes.CDLL(os.fspath(path.absolute()), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        raise ArtifactError(f"cannot load {path}: {error}") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def check_file(path: Path) -> None:
    """Look at the file before the system's loader does, which a damaged one can crash."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(64)
            if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
                raise ArtifactError(f"{path} is not a shared library")
            (sections,) = struct.unpack_from("<Q", header, 40)
            entry, count = struct.unpack_from("<HH", header, 58)
            if sections + entry * count > size or not count:
                raise ArtifactError(
                    f"{path} is truncated: {size} bytes of {sections + entry * count}"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                at = view.find(_MARKER)
                text = view[at + len(_MARKER) : at + len(_MARKER) + 12] if at >= 0 else b""
    except FileNotFoundError:
        raise ArtifactError(f"there is no file {path}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    if not text:
        raise ArtifactError(f"{path} was not made by lowgemm")
    version = int(text.split(b";")[0])
    if version > FORMAT:
        raise ArtifactError(
            f"{path} has format {version}; this lowgemm reads up to {FORMAT}: install a newer one"
        )
