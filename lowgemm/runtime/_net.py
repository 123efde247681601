"""A loaded model: numpy arrays in, numpy arrays out."""

import ctypes
import json
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm.errors import InputError, TargetError
from lowgemm.runtime._library import PortInfo, StepInfo, open_library

_ALIGNMENT = 64


def load(path: str | os.PathLike[str], threads: int | None = None) -> "Net":
    """Load a compiled model.

    Args:
        path: the shared library that `CompiledModel.export` wrote.
        threads: how many threads one call computes on; by default as many as there are CPUs to use.

    Raises:
        ArtifactError: the file is missing, damaged, too new, or not a compiled model.
        TargetError: this CPU lacks what the model was compiled for; the message names the feature.
        InputError: `threads` is less than 1.
    """
    return Net(path, threads)


class _Port:
    """Name, dtype and shape of one input or output."""

    def __init__(self, info: PortInfo) -> None:
        self.name = info.name.decode()
        self.dtype = np.dtype(info.dtype.decode())
        self.shape = tuple(info.shape[d] for d in range(info.ndim))
        self.bytes = int(info.bytes)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.name}[{', '.join(map(str, self.shape))}]"


class Net:
    """A compiled model, ready to run. Calls from several threads run side by side, each on a context of its own.

    `inputs` and `outputs` say names, dtypes and shapes.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        self._library = open_library(Path(path))
        self._threads = threads or 0
        self.inputs = self._ports("input")
        self.outputs = self._ports("output")
        self._idle: list[int] = []
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, _destroy, self._library, self._idle)
        first = self._create()
        self.level: str = self._library.lowgemm_level(first).decode()
        self.threads: int = self._library.lowgemm_threads(first)
        self._idle.append(first)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the library says of itself: shapes, levels, steps, versions."""
        return json.loads(self._library.lowgemm_manifest())

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all outputs, by name.

        Raises:
            InputError: a name, dtype or shape that does not fit the model.
        """
        arrays = self._checked(inputs)
        outputs = [_aligned(p.shape, p.dtype) for p in self.outputs]
        context = self._acquire()
        try:
            self._run(context, arrays, outputs)
        finally:
            self._release(context)
        return {port.name: array for port, array in zip(self.outputs, outputs, strict=True)}

    def profile(self, inputs: dict[str, np.ndarray], repeat: int = 10) -> list[dict[str, Any]]:
        """Run `repeat` times and return, for every step: layer, kernel, macs and the median time in seconds."""
        arrays = self._checked(inputs)
        outputs = [_aligned(p.shape, p.dtype) for p in self.outputs]
        library = self._library
        context = self._acquire()
        try:
            count = library.lowgemm_num_steps(context)
            times = np.zeros((max(1, repeat), count))
            info = StepInfo()
            self._run(context, arrays, outputs)
            library.lowgemm_set_profiling(context, 1)
            for row in times:
                self._run(context, arrays, outputs)
                for index in range(count):
                    library.lowgemm_step(context, index, ctypes.byref(info))
                    row[index] = info.nanoseconds * 1e-9
            rows = []
            for index, seconds in enumerate(np.median(times, axis=0)):
                library.lowgemm_step(context, index, ctypes.byref(info))
                rows.append(
                    {
                        "layer": info.layer.decode(),
                        "kernel": info.kernel.decode(),
                        "macs": int(info.macs),
                        "seconds": float(seconds),
                    }
                )
            return rows
        finally:
            library.lowgemm_set_profiling(context, 0)
            self._release(context)

    def _ports(self, kind: str) -> tuple[_Port, ...]:
        ports = []
        info = PortInfo()
        for index in range(getattr(self._library, f"lowgemm_num_{kind}s")()):
            getattr(self._library, f"lowgemm_{kind}")(index, ctypes.byref(info))
            ports.append(_Port(info))
        return tuple(ports)

    def _create(self) -> int:
        context = self._library.lowgemm_create(self._threads)
        if not context:
            raise TargetError(self._library.lowgemm_last_error().decode())
        return context

    def _acquire(self) -> int:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._create()

    def _release(self, context: int) -> None:
        with self._lock:
            self._idle.append(context)

    def _run(self, context: int, arrays: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        ins = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        outs = (ctypes.c_void_p * len(outputs))(*[a.ctypes.data for a in outputs])
        if self._library.lowgemm_run(context, ins, outs) != 0:
            raise InputError(self._library.lowgemm_last_error().decode())

    def _checked(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays in the model's order, C-contiguous."""
        if inputs.keys() != {p.name for p in self.inputs}:
            expected = ", ".join(p.name for p in self.inputs)
            given = ", ".join(map(str, inputs)) or "none"
            raise InputError(f"the model's inputs are {expected}; given were {given}")
        arrays = []
        for port in self.inputs:
            array = np.asarray(inputs[port.name])
            if array.dtype != port.dtype or array.shape != port.shape:
                shape = ", ".join(map(str, array.shape))
                raise InputError(f"input {port} was given as {array.dtype.name}[{shape}]")
            arrays.append(np.ascontiguousarray(array))
        return arrays


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array whose data kernels can write without a copy."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _destroy(library: ctypes.CDLL, contexts: list[int]) -> None:
    while contexts:
        library.lowgemm_destroy(contexts.pop())
