"""Single layers: which ones there are, and each as a quantized ONNX model."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SHAPES = Path(__file__).parent / "shapes"
_SEED = 0
_INPUT_ZERO_POINT = 43
_OUTPUT_ZERO_POINT = 5
_INPUT_SCALE = 0.02
_OUTPUT_SCALE = 0.05
# Accumulators spread so that most outputs do not saturate: ±128 quantized steps are four sigmas.
_SIGMA_STEPS = 32


@dataclass(frozen=True)
class Layer:
    """A convolution, or a matrix product as one of 1x1 over `height` = rows, `width` = 1.

    `batch`, `in_channels` and so on as in ONNX; strides, pads and dilations alike on both axes.
    """

    name: str
    is_gemm: bool
    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    @property
    def out_size(self) -> tuple[int, int]:
        height, width = (
            (size + 2 * self.pad - self.dilation * (k - 1) - 1) // self.stride + 1
            for size, k in zip((self.height, self.width), self.kernel, strict=True)
        )
        return height, width

    @property
    def out_shape(self) -> tuple[int, ...]:
        if self.is_gemm:
            return self.height, self.out_channels
        return self.batch, self.out_channels, *self.out_size

    @property
    def depth(self) -> int:
        """Products that one output sums."""
        return self.in_channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        height, width = self.out_size
        return self.batch * height * width * self.out_channels * self.depth

    @property
    def shape(self) -> str:
        if self.is_gemm:
            return f"{self.height}x{self.out_channels}x{self.in_channels}"
        text = (
            f"{self.batch}x{self.in_channels}x{self.height}x{self.width} -> {self.out_channels}, "
            f"{self.kernel[0]}x{self.kernel[1]} stride {self.stride} pad {self.pad}"
        )
        text += f" dilation {self.dilation}" if self.dilation > 1 else ""
        return text + (f" groups {self.groups}" if self.groups > 1 else "")

    @cached_property
    def data(self) -> "LayerData":
        """The same data at every call, over the whole range of both types."""
        generator = np.random.default_rng(_SEED)
        x_shape = (
            (self.height, self.in_channels)
            if self.is_gemm
            else (self.batch, self.in_channels, self.height, self.width)
        )
        x = generator.integers(0, 256, x_shape, np.uint8)
        channels = self.in_channels // self.groups
        weight = generator.integers(-127, 128, (self.out_channels, channels, *self.kernel), np.int8)
        spread = np.sqrt(self.depth) * 74 * 112  # of x - 43 and of the weights, roughly
        scale = _SIGMA_STEPS * _OUTPUT_SCALE / (spread * _INPUT_SCALE)
        scales = (scale * generator.uniform(0.5, 1, self.out_channels)).astype(np.float32)
        bias = generator.integers(-1000, 1000, self.out_channels, np.int32)
        # The zero point is not the middle: bring the outputs back into the middle of their range.
        sums = weight.reshape(self.out_channels, -1).sum(1, dtype=np.int32)
        bias -= (sums * (128 - _INPUT_ZERO_POINT)).astype(np.int32)
        return LayerData(x, weight, scales, bias)


@dataclass(frozen=True)
class LayerData:
    """`x` uint8, `weight` int8 [out, in/groups, kh, kw], its scales, `bias` in accumulator steps."""

    x: np.ndarray
    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    x_scale: float = _INPUT_SCALE
    x_zero_point: int = _INPUT_ZERO_POINT
    out_scale: float = _OUTPUT_SCALE
    out_zero_point: int = _OUTPUT_ZERO_POINT + 123  # the middle, and not 128


def family(name: str) -> Iterator[Layer]:
    """The layers listed in shapes/NAME.txt: "gemm", "conv" or "depthwise"."""
    section = ""
    for line in (_SHAPES / f"{name}.txt").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            numbers = [int(word) for word in line.split()]
            if name == "gemm":
                rows, cols, depth = numbers
                yield Layer(section, True, 1, depth, rows, 1, cols)
            else:
                batch, channels, height, width, out, groups, kh, kw, *rest = numbers
                yield Layer(
                    section, False, batch, channels, height, width, out, groups, (kh, kw), *rest
                )


def to_onnx(layer: Layer) -> onnx.ModelProto:
    """The layer as a QDQ model from uint8 `x` to uint8 `y`."""
    data = layer.data
    weight = data.weight
    if layer.is_gemm:
        weight = np.ascontiguousarray(weight.reshape(layer.out_channels, -1).T)
    constants = {
        "x_scale": np.float32(data.x_scale),
        "x_zero_point": np.uint8(data.x_zero_point),
        "w": weight,
        "w_scale": data.scales,
        "w_zero_point": np.zeros(layer.out_channels, np.int8),
        "b": data.bias,
        "b_scale": np.float32(data.x_scale) * data.scales,
        "b_zero_point": np.zeros(layer.out_channels, np.int32),
        "y_scale": np.float32(data.out_scale),
        "y_zero_point": np.uint8(data.out_zero_point),
    }

    def dequantize(name: str, axis: int) -> onnx.NodeProto:
        names = [name, f"{name}_scale", f"{name}_zero_point"]
        return helper.make_node("DequantizeLinear", names, [f"{name}_float"], axis=axis)

    operands = ["x_float", "w_float", "b_float"]
    if layer.is_gemm:
        product = helper.make_node("Gemm", operands, ["y_float"])
    else:
        product = helper.make_node(
            "Conv",
            operands,
            ["y_float"],
            kernel_shape=layer.kernel,
            strides=[layer.stride] * 2,
            pads=[layer.pad] * 4,
            dilations=[layer.dilation] * 2,
            group=layer.groups,
        )
    nodes = [
        dequantize("x", 0),
        dequantize("w", 1 if layer.is_gemm else 0),
        dequantize("b", 0),
        product,
        helper.make_node("QuantizeLinear", ["y_float", "y_scale", "y_zero_point"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, data.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, layer.out_shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
