"""oneDNN's own library (wheels onednn-cpu-gomp and onednn-devel-cpu-gomp), called by a loop in C++."""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path

import numpy as np

from benchmarks.layers import Layer
from benchmarks.native_loops import NATIVE, build

_PREFIX = Path(sys.prefix)


class OneDnnLayer:
    """A layer with packed weights and channels-last activations. Only the last one made can be run."""

    def __init__(self, layer: Layer, threads: int) -> None:
        self._loop = _loop()
        data = layer.data
        self._x = np.ascontiguousarray(np.moveaxis(data.x, 1, -1))
        out_shape = (layer.batch, *layer.out_sizes, layer.out_channels)
        self._y = np.empty(out_shape, np.uint8)
        weight = np.ascontiguousarray(data.weight)
        # oneDNN adds the bias behind the scales of x and of the weights.
        bias = (data.bias * np.float64(np.float32(data.x_scale)) * data.scales).astype(np.float32)
        numbers = [layer.batch, layer.in_channels, layer.out_channels, layer.groups, layer.rank]
        numbers += [layer.transposed, *layer.sizes, *layer.kernel, *layer.strides]
        # A transposed convolution's output padding takes as much off the end.
        ends = [
            p - more for p, more in zip(layer.pads[layer.rank :], layer.output_pad, strict=True)
        ]
        numbers += [*layer.dilations, *layer.pads[: layer.rank], *ends, *layer.out_sizes]
        self._kept = [np.array(numbers, np.int64), weight, data.scales, bias]
        shape, weight_at, scales, bias_at = (_pointer(array) for array in self._kept)
        failed = self._loop.onednn_make(
            *(shape, _pointer(self._x), weight_at, scales),
            *(ctypes.c_float(data.x_scale), ctypes.c_float(data.out_scale)),
            *(data.x_zero_point, data.out_zero_point, bias_at, _pointer(self._y), threads),
        )
        if failed:
            raise RuntimeError(self._loop.onednn_message().decode())

    def output(self) -> np.ndarray:
        """The result, uint8, in ONNX's order of axes."""
        self(1)
        return np.ascontiguousarray(np.moveaxis(self._y, -1, 1))

    def __call__(self, runs: int) -> list[float]:
        seconds = (ctypes.c_double * runs)()
        if self._loop.onednn_time(runs, seconds):
            raise RuntimeError(self._loop.onednn_message().decode())
        return list(seconds)

    def close(self) -> None:
        """Drop the layer that the loop holds."""
        self._loop.onednn_drop()


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def _loop() -> ctypes.CDLL:
    library = _PREFIX / "lib" / "libdnnl.so.3"
    if not library.exists():
        raise RuntimeError("onednn is not installed: pip install onednn-devel-cpu-gomp")
    flags = ["-std=c++17", "-fopenmp", f"-I{_PREFIX / 'include'}", str(library)]
    loop = build(NATIVE / "onednn_loop.cpp", "g++", [*flags, f"-Wl,-rpath,{library.parent}"])
    loop.onednn_message.restype = ctypes.c_char_p
    return loop
