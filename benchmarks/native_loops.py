"""Loops in C that time calls without Python."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

import lowgemm
from lowgemm.artifact.build import find_compiler
from lowgemm.ops import _call, _library

NATIVE = Path(__file__).parent / "native"
_PACKAGE = Path(lowgemm.__file__).parent


def build(source: Path, compiler: str | Sequence[str], flags: Sequence[str]) -> ctypes.CDLL:
    """A source file as a loaded library."""
    command = [compiler] if isinstance(compiler, str) else list(compiler)
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / f"{source.stem}.so"
        command += ["-O2", "-shared", "-fPIC", "-o", str(built), str(source), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile: {done.stderr.strip()[:500]}")
        return ctypes.CDLL(str(built))


@functools.cache
def lowgemm_loop() -> ctypes.CDLL:
    """The loops over what lowgemm compiled."""
    headers = [f"-I{_PACKAGE / folder}" for folder in ("artifact/csrc", "ops/csrc")]
    return build(NATIVE / "lowgemm_loop.c", find_compiler(), headers)


class NativeCalls:
    """The calls of kernels that a call of an operator makes, to be made again without Python.

    Args:
        run: calls the operator once, and keeps alive all that it works on.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        made: list[_call.Call] = []
        original = _call.Call.__call__

        def logged(call: _call.Call) -> None:
            made.append(call)
            original(call)

        with mock.patch.object(_call.Call, "__call__", logged):
            run()
        self._kept = (run, made)
        self._calls = (ctypes.c_void_p * len(made))(*(call._address for call in made))

    def __call__(self, runs: int) -> list[float]:
        """The seconds of each of `runs` runs of all calls."""
        seconds = (ctypes.c_double * runs)()
        run = _library.runtime().run
        if lowgemm_loop().time_calls(run, self._calls, len(self._calls), runs, seconds):
            raise RuntimeError(_library.runtime().message())
        return list(seconds)


class Operator:
    """A call of an operator that writes into an array, as a contestant: its native calls alone.

    Args:
        run: calls the operator once.
        out: the array.
    """

    def __init__(self, run: Callable[[], object], out: np.ndarray) -> None:
        self._calls, self._out = NativeCalls(run), out

    def output(self) -> np.ndarray:
        """A copy of what it writes."""
        self._calls(1)
        return self._out.copy()

    def __call__(self, runs: int) -> list[float]:
        return self._calls(runs)

    def close(self) -> None:
        """All operators share one pool, which stays."""


def empty_regions(runs: int) -> list[float]:
    """The seconds of each of `runs` parallel regions of operators that do nothing."""
    runtime = _library.runtime()
    seconds = (ctypes.c_double * runs)()
    # lgops_hooks begins with the function that launches regions.
    launch = ctypes.c_void_p.from_address(ctypes.addressof(runtime._storage)).value
    if lowgemm_loop().time_regions(runtime.run, ctypes.c_void_p(launch), runs, seconds):
        raise RuntimeError("a parallel region failed")
    return list(seconds)
