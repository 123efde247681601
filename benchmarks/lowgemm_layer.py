"""A layer compiled by lowgemm, timed by a loop in C."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx

import lowgemm
from benchmarks.layers import Layer, to_onnx
from lowgemm.artifact.build import find_compiler

_SOURCE = Path(__file__).parent / "native" / "lowgemm_loop.c"
_HEADERS = Path(lowgemm.__file__).parent / "artifact" / "csrc"


class LowgemmLayer:
    """A layer as a library of its own.

    A convolution's time is that of the kernels that multiply: a library takes and returns tensors
    in the model's order of axes, and inside a network nobody reorders between layers.

    Args:
        folder: an empty one, where the library goes; it may be removed after `close`.
    """

    def __init__(self, layer: Layer, folder: Path, threads: int) -> None:
        model, path = folder / "layer.onnx", folder / "layer.so"
        onnx.save(to_onnx(layer), model)
        lowgemm.compile(model, threads=threads).export(path)
        self._loop = _loop()
        self._library = ctypes.CDLL(str(path))
        self._library.lowgemm_create.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.lowgemm_create(threads))
        self._steps = 0 if layer.is_gemm else self._library.lowgemm_num_steps(self._context)
        if self._steps:
            self._library.lowgemm_set_profiling(self._context, 1)
        self._x = np.ascontiguousarray(layer.data.x)
        self._y = np.empty(layer.out_shape, np.uint8)
        self._ports = tuple((ctypes.c_void_p * 1)(a.ctypes.data) for a in (self._x, self._y))

    def output(self) -> np.ndarray:
        """The result, uint8, in ONNX's order of axes."""
        self(1)
        return self._y.copy()

    def __call__(self, runs: int) -> list[float]:
        seconds = (ctypes.c_double * runs)()
        run, arguments = self._library.lowgemm_run, (self._context, *self._ports, runs, seconds)
        if self._steps:
            step = self._library.lowgemm_step
            failed = self._loop.time_products(run, step, self._steps, *arguments)
        else:
            failed = self._loop.time_runs(run, *arguments)
        if failed:
            raise RuntimeError("lowgemm_run failed")
        return list(seconds)

    def close(self) -> None:
        """End the context's threads."""
        self._library.lowgemm_destroy(self._context)


@functools.cache
def _loop() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "loop.so"
        command = [*find_compiler(), "-O2", "-shared", "-fPIC", f"-I{_HEADERS}", "-o", str(built)]
        subprocess.run([*command, str(_SOURCE)], check=True)
        return ctypes.CDLL(str(built))
