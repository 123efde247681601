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


class LowgemmLayer:
    """A layer as a library of its own.

    A convolution's time is that of the kernels that multiply: a library takes and returns tensors
    in the model's order of axes, and inside a network nobody reorders between layers.
    """

    def __init__(self, layer: Layer, folder: Path, threads: int) -> None:
        model, library = folder / "layer.onnx", folder / "layer.so"
        onnx.save(to_onnx(layer), model)
        lowgemm.compile(model, threads=threads).export(library)
        self._data = layer.data
        self._net = lowgemm.load(library, threads=threads)
        self._library = ctypes.CDLL(str(library))
        self._loop = _compile_loop(folder / "lowgemm.h" if False else library.with_suffix(".h"))
        create = self._library.lowgemm_create
        create.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(create(threads))
        self._products_only = not layer.is_gemm
        if self._products_only:
            self._library.lowgemm_set_profiling(self._context, 1)
        self._out = np.ascontiguousarray(self.output())
        self._pointers = tuple(
            (ctypes.c_void_p * 1)(array.ctypes.data) for array in (self._data.x, self._out)
        )

    def output(self) -> np.ndarray:
        """The result, uint8, in ONNX's order of axes."""
        return self._net({"x": self._data.x})["y"]

    def __call__(self, runs: int) -> list[float]:
        seconds = (ctypes.c_double * runs)()
        if self._products_only:
            steps = self._library.lowgemm_num_steps(self._context)
            functions = (self._library.lowgemm_run, self._library.lowgemm_step, steps)
            failed = self._loop.time_products(
                *functions, self._context, *self._pointers, runs, seconds
            )
        else:
            failed = self._loop.time_runs(
                self._library.lowgemm_run, self._context, *self._pointers, runs, seconds
            )
        if failed:
            raise RuntimeError("lowgemm_run failed")
        return list(seconds)


@functools.cache
def _compile_loop(header: Path) -> ctypes.CDLL:
    """The timing loop; any library's header does, they are all alike."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "loop.so"
        (Path(folder) / "lowgemm.h").write_bytes(header.read_bytes())
        command = [*find_compiler(), "-O2", "-shared", "-fPIC", f"-I{folder}", "-o", str(built)]
        subprocess.run([*command, str(_SOURCE)], check=True)
        return ctypes.CDLL(str(built))
