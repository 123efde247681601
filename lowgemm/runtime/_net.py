"""A loaded model: numpy arrays in, numpy arrays out."""

import ctypes
import json
import os
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm.errors import InputError, LowgemmError, TargetError
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

    def empty(self) -> np.ndarray:
        """An uninitialised array whose data kernels can write without a copy."""
        raw = np.empty(self.bytes + _ALIGNMENT, np.uint8)
        start = -_address(raw) % _ALIGNMENT
        return np.ndarray(self.shape, self.dtype, raw, start)


class _Context:
    """A context of the library, and the pointers to give it."""

    def __init__(self, handle: int, inputs: int, outputs: int) -> None:
        self.handle = handle
        self.inputs = (ctypes.c_void_p * inputs)()
        self.outputs = (ctypes.c_void_p * outputs)()


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
        # Appending and popping are atomic, so that no lock is needed.
        self._idle: deque[_Context] = deque()
        weakref.finalize(self, _destroy, self._library, self._idle)
        first = self._acquire()
        self.level: str = self._library.lowgemm_level(first.handle).decode()
        self.threads: int = self._library.lowgemm_threads(first.handle)
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
        outputs = {port.name: port.empty() for port in self.outputs}
        context = self._acquire()
        try:
            _point(context, arrays, outputs.values())
            self._run(context)
        finally:
            self._idle.append(context)
        return outputs

    def bind(
        self, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray] | None = None
    ) -> "BoundNet":
        """Fix the arrays to work on, so that a call costs hardly more than the kernels.

        Args:
            inputs: C-contiguous arrays, read at every call.
            outputs: C-contiguous arrays that every call writes, apart from each other and from the inputs; new ones if
                not given.

        Raises:
            InputError: a name, dtype or shape that does not fit the model, or an array that cannot be used in place.
        """
        return BoundNet(self, inputs, outputs)

    def profile(self, inputs: dict[str, np.ndarray], repeat: int = 10) -> list[dict[str, Any]]:
        """Run `repeat` times and return, for every step: layer, kernel, shape, macs, median seconds.

        `shape` is that of the tensor the step writes, as it is stored: NHWC for 8-bit maps.
        """
        arrays = self._checked(inputs)
        outputs = [port.empty() for port in self.outputs]
        library = self._library
        context = self._acquire()
        try:
            count = library.lowgemm_num_steps(context.handle)
            times = np.zeros((max(1, repeat), count))
            info = StepInfo()
            _point(context, arrays, outputs)
            self._run(context)
            library.lowgemm_set_profiling(context.handle, 1)
            for row in times:
                self._run(context)
                for index in range(count):
                    library.lowgemm_step(context.handle, index, ctypes.byref(info))
                    row[index] = info.nanoseconds * 1e-9
            (variant,) = (v for v in self.manifest["variants"] if v["level"] == self.level)
            rows = []
            for index, seconds in enumerate(np.median(times, axis=0)):
                library.lowgemm_step(context.handle, index, ctypes.byref(info))
                rows.append(
                    {
                        "layer": info.layer.decode(),
                        "kernel": info.kernel.decode(),
                        "shape": tuple(variant["steps"][index]["shape"]),
                        "macs": int(info.macs),
                        "seconds": float(seconds),
                    }
                )
            return rows
        finally:
            library.lowgemm_set_profiling(context.handle, 0)
            self._idle.append(context)

    def _ports(self, kind: str) -> tuple[_Port, ...]:
        ports = []
        info = PortInfo()
        for index in range(getattr(self._library, f"lowgemm_num_{kind}s")()):
            getattr(self._library, f"lowgemm_{kind}")(index, ctypes.byref(info))
            ports.append(_Port(info))
        return tuple(ports)

    def _acquire(self) -> _Context:
        """A context that nobody else uses, until it is appended to `_idle` again."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        handle = self._library.lowgemm_create(self._threads)
        if not handle:
            raise TargetError(self._library.lowgemm_last_error().decode())
        return _Context(handle, len(self.inputs), len(self.outputs))

    def _run(self, context: _Context) -> None:
        if self._library.lowgemm_run(context.handle, context.inputs, context.outputs) != 0:
            raise LowgemmError(self._library.lowgemm_last_error().decode())

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays in the model's order, C-contiguous."""
        _check_names(inputs, self.inputs, "input")
        arrays = []
        for port in self.inputs:
            array = np.asarray(inputs[port.name])
            _check_array(array, port, "input")
            arrays.append(array if array.flags.c_contiguous else np.ascontiguousarray(array))
        return arrays


class BoundNet:
    """A net that works on the same arrays at every call; for one thread at a time. Made by `Net.bind`.

    `inputs` and `outputs` are the arrays by name: change the former in place, read the latter after a call.
    """

    def __init__(
        self,
        net: Net,
        inputs: dict[str, np.ndarray],
        outputs: dict[str, np.ndarray] | None = None,
    ) -> None:
        if outputs is None:
            outputs = {port.name: port.empty() for port in net.outputs}
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        used: list[np.ndarray] = []
        for kind, ports, arrays in (
            ("input", net.inputs, self.inputs),
            ("output", net.outputs, self.outputs),
        ):
            _check_names(arrays, ports, kind)
            for port in ports:
                array = arrays[port.name]
                if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
                    raise InputError(f"{kind} {port} must be a C-contiguous array to be bound")
                _check_array(array, port, kind)
                if kind == "output":
                    if not array.flags.writeable:
                        raise InputError(f"output {port} is read-only")
                    if any(np.may_share_memory(array, other) for other in used):
                        raise InputError(f"output {port} shares memory with another array")
                used.append(array)
        self._net = net
        self._context = net._acquire()
        finalizer = weakref.finalize(self, net._library.lowgemm_destroy, self._context.handle)
        finalizer.atexit = False  # a daemon thread may still be computing then
        _point(self._context, used[: len(net.inputs)], used[len(net.inputs) :])

    def __call__(self) -> dict[str, np.ndarray]:
        """Compute `outputs` from what `inputs` hold now."""
        self._net._run(self._context)
        return self.outputs

    def step_seconds(self) -> list[float]:
        """Compute once, and return the seconds of every step of the manifest's variant of this level."""
        library, handle, info = self._net._library, self._context.handle, StepInfo()
        library.lowgemm_set_profiling(handle, 1)
        try:
            self._net._run(self._context)
        finally:
            library.lowgemm_set_profiling(handle, 0)
        seconds = []
        for index in range(library.lowgemm_num_steps(handle)):
            library.lowgemm_step(handle, index, ctypes.byref(info))
            seconds.append(info.nanoseconds * 1e-9)
        return seconds


def _check_names(arrays: Mapping[str, np.ndarray], ports: tuple[_Port, ...], kind: str) -> None:
    if not isinstance(arrays, Mapping):
        raise InputError(f"{kind}s are a dict of arrays by name, not {type(arrays).__name__}")
    if len(arrays) != len(ports) or any(port.name not in arrays for port in ports):
        expected = ", ".join(port.name for port in ports)
        given = ", ".join(map(str, arrays)) or "none"
        raise InputError(f"the model's {kind}s are {expected}; given were {given}")


def _check_array(array: np.ndarray, port: _Port, kind: str) -> None:
    if array.dtype != port.dtype or array.shape != port.shape:
        shape = ", ".join(map(str, array.shape))
        raise InputError(f"{kind} {port} was given as {array.dtype}[{shape}]")


def _address(array: np.ndarray) -> int:
    if array.flags.writeable and array.size:
        # A quarter of the time of array.ctypes.data, but only for what may be written.
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # pyright: ignore[reportArgumentType]
    return array.ctypes.data


def _point(context: _Context, inputs: Iterable[np.ndarray], outputs: Iterable[np.ndarray]) -> None:
    """Let the context's pointers be those of the arrays, which must live on while it runs."""
    for index, array in enumerate(inputs):
        context.inputs[index] = _address(array)
    for index, array in enumerate(outputs):
        context.outputs[index] = _address(array)


def _destroy(library: ctypes.CDLL, contexts: deque[_Context]) -> None:
    while contexts:
        library.lowgemm_destroy(contexts.pop().handle)
