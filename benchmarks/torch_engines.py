"""PyTorch's operators, timed by a loop in C++: quantized ones through FBGEMM or oneDNN, and float ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import cpp_extension

from benchmarks.layers import Layer

# Our names of PyTorch's quantized engines; oneDNN's own library is a peer, too.
ENGINES = {"fbgemm": "fbgemm", "onednn-torch": "onednn"}
_SOURCE = Path(__file__).parent / "native" / "torch_loop.cpp"
_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def loops() -> Any:
    """The timing loops."""
    if not hasattr(torch.ops.lowgemm_benchmarks, "time_linear"):
        cpp_extension.load(
            "lowgemm_benchmarks", [str(_SOURCE)], is_python_module=False, extra_cflags=["-O2"]
        )
    return torch.ops.lowgemm_benchmarks


class TorchLayer:
    """A layer with its weights packed for one of `ENGINES`; activations are channels-last."""

    def __init__(self, layer: Layer, engine: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.backends.quantized.engine = ENGINES[engine]
        data = layer.data
        weight = torch.from_numpy(layer.stored_weight(data.weight).astype(np.float32))
        if layer.transposed:
            scale = float(data.scales[0])
            weight = torch.quantize_per_tensor(weight * scale, scale, 0, torch.qint8)
        else:
            scales = torch.from_numpy(data.scales.astype(np.float64))
            weight = weight * scales.float().reshape(-1, *[1] * (weight.ndim - 1))
            zeros = torch.zeros(layer.out_channels, dtype=torch.int64)
            weight = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = torch.from_numpy(data.bias * data.x_scale * data.scales).float()
        x = (torch.from_numpy(data.x).float() - data.x_zero_point) * data.x_scale
        ops: Any = torch.ops.quantized
        if layer.is_gemm:
            self._packed: Any = ops.linear_prepack(weight, bias)
            self._apply: Any = ops.linear
            self._time: Any = loops().time_linear
        else:
            axes = _Axes(layer)
            weight, x = axes.widen(weight), axes.widen(x)
            name = f"conv_transpose{axes.count}d" if layer.transposed else f"conv{axes.count}d"
            arguments = [axes.stride, axes.pad]
            arguments += [axes.output_pad] if layer.transposed else []
            prepack = getattr(ops, f"{name}_prepack")
            self._packed = prepack(weight, bias, *arguments, axes.dilation, layer.groups)
            apply = getattr(ops, name)
            self._apply = apply if layer.transposed else apply.new
            self._time = getattr(loops(), f"time_conv{axes.count}d")
            x = x.contiguous(memory_format=_LAST[axes.count])
        self._x = torch.quantize_per_tensor(x, data.x_scale, data.x_zero_point, torch.quint8)
        self._out = (data.out_scale, data.out_zero_point)
        self._shape = layer.out_shape

    def output(self) -> np.ndarray:
        """The result, uint8, in ONNX's order of axes."""
        found = self._apply(self._x, self._packed, *self._out)
        return found.int_repr().contiguous().numpy().reshape(self._shape)

    def __call__(self, runs: int) -> list[float]:
        return self._time(self._x, self._packed, *self._out, runs).tolist()

    def close(self) -> None:
        """Tensors go with their last reference."""


class TorchFloatLayer:
    """The same convolution in float32, by oneDNN with packed weights, activations channels-last."""

    def __init__(self, layer: Layer, threads: int) -> None:
        torch.set_num_threads(threads)
        data, axes = layer.data, _Axes(layer)
        scales = data.scales.reshape(-1, *[1] * (layer.rank + 1))
        weight = torch.from_numpy(layer.stored_weight((data.weight * scales).astype(np.float32)))
        x = axes.widen((torch.from_numpy(data.x).float() - data.x_zero_point) * data.x_scale)
        x = x.contiguous(memory_format=_LAST[axes.count])
        bias = torch.from_numpy(data.bias * data.x_scale * data.scales).float()
        ops: Any = torch.ops.mkldnn
        weight, sizes = axes.widen(weight), list(x.shape)
        lists = [axes.pad, axes.stride, axes.dilation]
        if layer.transposed:
            lists.insert(1, axes.output_pad)
            packed = ops._reorder_convolution_transpose_weight(weight, *lists, layer.groups, sizes)
        else:
            packed = ops._reorder_convolution_weight(weight, *lists, layer.groups, sizes)
        self._arguments = (
            *(x, packed, bias, axes.pad, axes.output_pad, axes.stride, axes.dilation),
            *(layer.groups, layer.transposed),
        )
        self._layer = layer

    def output(self) -> np.ndarray:
        """The result, quantized as the others quantize theirs."""
        x, weight, bias, pad, output_pad, *rest, groups, transposed = self._arguments
        ops: Any = torch.ops.mkldnn
        end = (groups, "none", [], "")
        if transposed:
            found = ops._convolution_transpose_pointwise(
                x, weight, bias, pad, output_pad, *rest, *end
            )
        else:
            found = ops._convolution_pointwise(x, weight, bias, pad, *rest, *end)
        data = self._layer.data
        codes = np.rint(found.contiguous().numpy() / np.float32(data.out_scale))
        codes = (codes + data.out_zero_point).clip(0, 255).astype(np.uint8)
        return codes.reshape(self._layer.out_shape)

    def __call__(self, runs: int) -> list[float]:
        return loops().time_conv_float(*self._arguments, runs).tolist()

    def close(self) -> None:
        """Tensors go with their last reference."""


class _Axes:
    """A layer's axes as PyTorch takes them: two or three, pads alike at both ends."""

    def __init__(self, layer: Layer) -> None:
        begins, ends = layer.pads[: layer.rank], layer.pads[layer.rank :]
        if begins != ends:
            raise ValueError("PyTorch pads both ends alike")
        self.one = layer.rank == 1
        self.count = max(layer.rank, 2)
        self.stride, self.dilation = self._two(layer.strides, 1), self._two(layer.dilations, 1)
        self.pad, self.output_pad = self._two(begins, 0), self._two(layer.output_pad, 0)

    def _two(self, values: tuple[int, ...], other: int) -> list[int]:
        return [other, *values] if self.one else list(values)

    def widen(self, tensor: torch.Tensor) -> torch.Tensor:
        """One axis as two, the first of them of size one: what PyTorch makes of it, too."""
        return tensor.unsqueeze(2) if self.one else tensor
