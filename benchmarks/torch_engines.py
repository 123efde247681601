"""PyTorch's quantized linear and conv2d, through FBGEMM or oneDNN, timed by a loop in C++."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import cpp_extension

from benchmarks.layers import Layer

ENGINES = ("fbgemm", "onednn")
_SOURCE = Path(__file__).parent / "native" / "torch_loop.cpp"


class TorchLayer:
    """A layer with its weights packed for one of `ENGINES`; activations are channels-last."""

    def __init__(self, layer: Layer, engine: str, threads: int) -> None:
        _load_loop()
        torch.set_num_threads(threads)
        torch.backends.quantized.engine = engine
        data = layer.data
        weight = torch.from_numpy(data.weight.astype(np.float32))
        scales = torch.from_numpy(data.scales.astype(np.float64))
        if layer.is_gemm:
            weight = weight.reshape(layer.out_channels, -1)
        weight = weight * scales.float().reshape(-1, *[1] * (weight.ndim - 1))
        zeros = torch.zeros(layer.out_channels, dtype=torch.int64)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = torch.from_numpy(data.bias * data.x_scale * data.scales).float()
        x = (torch.from_numpy(data.x).float() - data.x_zero_point) * data.x_scale
        if layer.is_gemm:
            self._packed: Any = torch.ops.quantized.linear_prepack(quantized, bias)
            self._apply: Any = torch.ops.quantized.linear
            self._time: Any = torch.ops.lowgemm_benchmarks.time_linear
        else:
            pairs = [[v] * 2 for v in (layer.stride, layer.pad, layer.dilation)]
            self._packed = torch.ops.quantized.conv2d_prepack(quantized, bias, *pairs, layer.groups)
            self._apply = torch.ops.quantized.conv2d.new
            self._time = torch.ops.lowgemm_benchmarks.time_conv2d
            x = x.contiguous(memory_format=torch.channels_last)
        self._x = torch.quantize_per_tensor(x, data.x_scale, data.x_zero_point, torch.quint8)
        self._out = (data.out_scale, data.out_zero_point)

    def output(self) -> np.ndarray:
        """The result, uint8, in ONNX's order of axes."""
        return self._apply(self._x, self._packed, *self._out).int_repr().contiguous().numpy()

    def __call__(self, runs: int) -> list[float]:
        return self._time(self._x, self._packed, *self._out, runs).tolist()


def _load_loop() -> None:
    if not hasattr(torch.ops.lowgemm_benchmarks, "time_linear"):
        cpp_extension.load(
            "lowgemm_benchmarks", [str(_SOURCE)], is_python_module=False, extra_cflags=["-O2"]
        )
