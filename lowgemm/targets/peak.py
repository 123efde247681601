"""What cores of this machine can reach: dot products per second, bytes read and copied per second.

Both are measured, by a small C program that is compiled when it is needed. A clock rate times
instructions per cycle would be wrong on machines that change their clock under vector load.
"""

import ctypes
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lowgemm.errors import TargetError
from lowgemm.targets._levels import LEVELS, CpuTarget, host_features
from lowgemm.targets._peak_source import PROGRAM

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Caches that no other core shares.
OWN_CACHES = ("L1", "L2")
_LEAST_BYTES = 512
# Of one of `DotRuns`: some 0.1 ms, of tiles 1 ms.
_ROUNDS = 4000
# More than the last-level cache, but no more than a small machine can spare.
_MEMORY_BYTES = (64 << 20, 512 << 20)


def measure_peak(level: str) -> float:
    """The highest rate of exact 8-bit dot products of `level` on one core of this machine, in GOPS.

    One multiply-accumulate is two operations. The rate is that of registers only: no loads.

    Raises:
        TargetError: no such level, this CPU lacks it, or there is no C compiler.
    """
    return max(measure_dot_rates(level).values())


def measure_dot_rates(level: str, threads: int = 1) -> dict[str, float]:
    """GOPS of `threads` cores together for each instruction sequence that `level` can make a dot product of.

    Raises:
        TargetError: as for `measure_peak`.
    """
    target = _runnable(level)
    with _program() as program:
        return {name: _run(program, "dot", name, threads) for name in _sequences(target)}


def measure_fma_rates(level: str, threads: int = 1) -> dict[str, float]:
    """GFLOPS of `threads` cores together for float32 multiply-adds in the widest vectors of `level`.

    Raises:
        TargetError: as for `measure_peak`.
    """
    name = f"vfmadd231ps {'zmm' if _runnable(level).vector_bits == 512 else 'ymm'}"
    with _program() as program:
        return {name: _run(program, "dot", name, threads)}


class DotRuns:
    """Runs of an instruction sequence's products on several cores, to be timed among other work.

    Args:
        sequence: a key of what `measure_dot_rates` or `measure_fma_rates` returns.
        threads: cores that work at the same time.

    Raises:
        TargetError: this CPU does not run the sequence, or there is no C compiler.
    """

    def __init__(self, sequence: str, threads: int) -> None:
        self._arguments = (sequence.encode(), threads, ctypes.c_long(_ROUNDS))
        self._time = _library().time_dots
        self._time.restype = ctypes.c_double
        self.macs = int(self._time(*self._arguments, 1, (ctypes.c_double * 1)()))
        if not self.macs:
            raise TargetError(f"cannot run {sequence} on {threads} threads")

    def __call__(self, runs: int) -> list[float]:
        """The seconds of each of `runs` runs, of `macs` multiply-accumulates together."""
        seconds = (ctypes.c_double * runs)()
        self._time(*self._arguments, runs, seconds)
        return list(seconds)


@functools.cache
def _library() -> ctypes.CDLL:
    with _program("-shared", "-fPIC") as program:
        return ctypes.CDLL(str(program))


def _runnable(level: str) -> CpuTarget:
    if level not in LEVELS:
        raise TargetError(f'unknown target "{level}"; use one of {", ".join(LEVELS)}')
    target = LEVELS[level]
    if missing := target.missing(host_features()):
        raise TargetError(f"cannot measure {level}: this CPU lacks {', '.join(missing)}")
    return target


def measure_read_rates(threads: int = 1) -> dict[str, float]:
    """GB/s (10^9 bytes) that `threads` cores together read from each cache and from memory: "L1", ..., "memory".

    Each core reads memory of its own, as much as half of its share of the cache: what surely stays in it.

    Raises:
        TargetError: there is no C compiler.
    """
    return _memory_rates("read", threads)


def measure_copy_rates(threads: int = 1) -> dict[str, float]:
    """The same of copies: bytes read and bytes written both count."""
    return _memory_rates("copy", threads)


def measure_read_rate(total: int, threads: int = 1) -> float:
    """GB/s at which `threads` cores read `total` bytes, each its own part, again and again.

    Raises:
        TargetError: there is no C compiler.
        ValueError: too few bytes to measure.
    """
    if total // threads < _LEAST_BYTES:
        raise ValueError(f"expected at least {_LEAST_BYTES} bytes for each thread, got {total}")
    with _program() as program:
        return _run(program, "read", total // threads, threads)


def _memory_rates(kind: str, threads: int) -> dict[str, float]:
    caches = cache_sizes()
    sizes = {
        name: size // 2 // (1 if name in OWN_CACHES else threads) for name, size in caches.items()
    }
    low, high = _MEMORY_BYTES
    sizes["memory"] = min(max(4 * max(caches.values(), default=0), low), high) // threads
    with _program() as program:
        return {name: _run(program, kind, size, threads) for name, size in sizes.items()}


@functools.cache
def cache_sizes() -> dict[str, int]:
    """Bytes of each data cache as seen by one core, "L1" first; empty where Linux does not say."""
    sizes = {}
    for entry in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = ((entry / n).read_text().strip() for n in ("type", "level", "size"))
        except OSError:
            continue
        matched = re.fullmatch(r"(\d+)([KMG]?)", size)
        if matched and kind in ("Data", "Unified"):
            sizes[f"L{level}"] = int(matched[1]) * _UNITS.get(matched[2], 1)
    return sizes


def _sequences(target: CpuTarget) -> tuple[str, ...]:
    if target.tiles:
        return ("tdpbusd tmm",)
    vector = "zmm" if target.vector_bits == 512 else "ymm"
    if target.dot_depth == 4:
        return (f"vpdpbusd {vector}",)
    return (f"vpmaddwd+vpaddd {vector}", f"vpmaddubsw+vpmaddwd+vpaddd {vector}")


@contextmanager
def _program(*flags: str) -> Iterator[Path]:
    """The compiled program, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="lowgemm-peak-") as folder:
        source, program = Path(folder) / "peak.c", Path(folder) / "peak"
        source.write_text(PROGRAM)
        command = [*_compiler(), "-O1", "-pthread", *flags, "-o", str(program), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reason = next((line for line in lines if "error" in line.lower()), "no message")
            raise TargetError(f"{shlex.join(_compiler())} cannot build the measurement: {reason}")
        yield program


def _run(program: Path, kind: str, what: str | int, threads: int) -> float:
    command = [program, kind, str(what), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"measuring {kind} {what} failed with code {done.returncode}")
    return float(done.stdout)


def _compiler() -> list[str]:
    """$CC, cc, gcc, clang or ziglang's: the order in which models are linked, too."""
    if command := shlex.split(os.environ.get("CC", "")):
        if shutil.which(command[0]):
            return command
        raise TargetError(f"CC={os.environ['CC']}: there is no such program")
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise TargetError("measuring needs a C compiler: install gcc or clang, or pip install ziglang")
