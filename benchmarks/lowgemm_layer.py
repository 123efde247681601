"""A layer compiled by lowgemm, timed by a loop in C."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import numpy as np
import onnx

import lowgemm
from benchmarks.layer_model import to_onnx
from benchmarks.layers import Layer
from benchmarks.native_loops import Operator, lowgemm_loop
from lowgemm import ops


class LowgemmLayer:
    """A product, or a convolution over two axes, as a library of its own.

    A convolution's time is that of the kernels that multiply: a library takes and returns tensors
    in the model's order of axes, and inside a network nobody reorders between layers.
    """

    def __init__(self, layer: Layer, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lowgemm-bench-")
        model, path = Path(self._folder.name) / "layer.onnx", Path(self._folder.name) / "layer.so"
        onnx.save(to_onnx(layer), model)
        lowgemm.compile(model, threads=threads).export(path)
        self._loop = lowgemm_loop()
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
        """End the context's threads, and remove the library."""
        self._library.lowgemm_destroy(self._context)
        self._folder.cleanup()


class LowgemmOperator(Operator):
    """Any convolution, by the operator `lowgemm.ops.pack_conv` on channels-last arrays: its native calls alone."""

    def __init__(self, layer: Layer, threads: int) -> None:
        ops.set_num_threads(threads)
        data = layer.data
        output = ops.Output(
            "uint8",
            multiplier=layer.data.multiplier.astype(np.float32),
            zero_point=data.out_zero_point,
            bias=data.bias,
        )
        conv = ops.pack_conv(
            layer.stored_weight(data.weight),
            x_zero_point=data.x_zero_point,
            strides=layer.strides,
            padding=layer.pads,
            dilations=layer.dilations,
            groups=layer.groups,
            transposed=layer.transposed,
            output_padding=layer.output_pad,
            output=output,
        )
        x = np.ascontiguousarray(np.moveaxis(data.x, 1, -1))
        y = np.empty((layer.batch, *layer.out_sizes, layer.out_channels), np.uint8)
        super().__init__(conv.bind(x, y), y)

    def output(self) -> np.ndarray:
        """The result, uint8, in ONNX's order of axes."""
        return np.ascontiguousarray(np.moveaxis(super().output(), -1, 1))
