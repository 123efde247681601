"""The C interface of a compiled model through ctypes, and the checks before a file is loaded."""

import ctypes
import os
import struct
from pathlib import Path
from typing import BinaryIO

from lowgemm.errors import ArtifactError

FORMAT = 1

_X86_64 = 62
_PT_LOAD, _PT_NOTE = 1, 4
_NOTE_LIMIT = 4096  # bytes; a linker may put other notes before ours

# The files loaded so far, by the name given to the system's loader.
_loaded: dict[str, tuple[int, int]] = {}


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
    identity = check_file(path)
    try:
        library = ctypes.CDLL(_loader_name(path, identity), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        raise ArtifactError(f"cannot load {path}: {error}") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _loader_name(path: Path, identity: tuple[int, int]) -> str:
    """A spelling of `path` by which no other file was loaded.

    Libraries stay loaded, and the system's loader takes a name it knows for the file it knows, though a newer one may
    have taken its place.
    """
    name = os.fspath(path.absolute())
    while _loaded.setdefault(name, identity) != identity:
        folder, base = os.path.split(name)
        name = f"{folder}/./{base}"
    return name


def check_file(path: Path) -> tuple[int, int]:
    """Look at the file before the system's loader does, which a damaged one can crash; nothing of it is run.

    Returns:
        What identifies the file: its device and inode.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            version = _format_of(file, state.st_size, path)
    except FileNotFoundError:
        raise ArtifactError(f"there is no file {path}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    if version > FORMAT:
        raise ArtifactError(
            f"{path} has format {version}; this lowgemm reads up to {FORMAT}: install a newer one"
        )
    return state.st_dev, state.st_ino


def _format_of(file: BinaryIO, size: int, path: Path) -> int:
    """The number in lowgemm's ELF note, from the file's headers alone."""
    header = file.read(64)
    # 64 bits, little-endian, a shared object
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01" or header[16:18] != b"\3\0":
        raise ArtifactError(f"{path} is not a shared library")
    (machine,) = struct.unpack_from("<H", header, 18)
    if machine != _X86_64:
        raise ArtifactError(f"{path} is not for x86-64")
    segments, sections = struct.unpack_from("<QQ", header, 32)
    entry, count, section_entry, section_count = struct.unpack_from("<HHHH", header, 54)
    ends = [segments + entry * count, sections + section_entry * section_count]
    notes = []
    if max(ends) <= size:
        file.seek(segments)
        table = file.read(entry * count)
        for at in range(0, len(table) - 55, max(entry, 56)):
            kind, _, start, _, _, length, _, alignment = struct.unpack_from("<IIQQQQQQ", table, at)
            if kind in (_PT_LOAD, _PT_NOTE):
                ends.append(start + length)
            if kind == _PT_NOTE:
                notes.append((start, min(length, _NOTE_LIMIT), max(alignment, 4)))
    if max(ends) > size:
        raise ArtifactError(f"{path} is truncated: {size} bytes of {max(ends)}")
    for start, length, alignment in notes:
        file.seek(start)
        version = _note_value(file.read(length), alignment)
        if version is not None:
            return version
    raise ArtifactError(f"{path} was not made by lowgemm")


def _note_value(notes: bytes, alignment: int) -> int | None:
    """The number in the note of type 1 that lowgemm owns, among `notes`."""
    at = 0
    while at + 12 <= len(notes):
        owner_size, value_size, kind = struct.unpack_from("<III", notes, at)
        owner = at + 12
        value = _round_up(owner + owner_size, alignment)
        after = _round_up(value + value_size, alignment)
        if (kind, notes[owner : owner + owner_size]) == (1, b"lowgemm\0") and after <= len(notes):
            return int.from_bytes(notes[value : value + value_size], "little")
        at = after
    return None


def _round_up(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
