"""A task as a model of one operator, with data that is hard on integer kernels and the exact result."""

import zlib
from dataclasses import dataclass

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.packing import FLAT, WINOGRAD_LARGEST_SUM, ConvShape, WinogradPacking
from lowgemm.passes import Quantization
from lowgemm.quant import LARGEST_SUM, add_codes, requantize, sum_factors
from lowgemm.reference import conv2d_i32
from lowgemm.schedules import WINOGRAD_FAMILIES, KernelTask

# Neither the middle of the range nor an end.
_POINTS = {"uint8": 43, "int8": -21}
_SCALES = (0.37, 0.21, 0.29)  # of the sum, its second operand and the result
# Accumulators are spread over so many steps of the output: most values do not saturate, some do.
_SPREAD = 60.0


@dataclass(frozen=True)
class Problem:
    """`graph` (fused) from `inputs` to the tensor "y", which must be `expected`."""

    graph: Graph
    inputs: dict[str, np.ndarray]
    expected: np.ndarray


def task_seed(task: KernelTask) -> int:
    """A number that is the task's own, the same in every process."""
    return zlib.crc32(repr(task.key).encode())


def can_pose(task: KernelTask) -> bool:
    """Whether `problem` knows the task's operator: convolutions in two dimensions, and matrix products."""
    return isinstance(task.shape, ConvShape) and task.shape.planes == FLAT


def problem(task: KernelTask) -> Problem:
    """The same data at every call: all codes, with runs of the largest that make 16-bit sums saturate."""
    assert can_pose(task)
    rng = np.random.default_rng(task_seed(task))
    shape, point = task.shape, _POINTS[task.in_dtype]
    x = _codes(rng, (shape.batch, shape.in_channels, shape.height, shape.width), task.in_dtype)
    x[:, :, : -(-shape.height // 4)] = np.iinfo(task.in_dtype).max
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = _codes(rng, size, "int8")
    if task.target.paired:
        weight = _words_in_pairs(rng, weight)
    elif task.target.summed:
        # The largest ones of which so many may be summed, in runs, too.
        limit = LARGEST_SUM // (2 * task.target.summed)
        weight = rng.integers(-limit, limit, size, np.int8, endpoint=True)
        weight[::7], weight[3::7] = limit, -limit
    else:
        weight[::7], weight[3::7] = 127, -128
    if WINOGRAD_FAMILIES.get(task.family) not in (None, *WinogradPacking.sizes(weight)):
        # The largest of which so many have a sum that such tiles compute.
        limit = WINOGRAD_LARGEST_SUM // (255 * 9 * shape.in_channels)
        weight = np.clip(weight, -limit, limit)
    acc = conv2d_i32(
        x, weight, point, 0, shape.strides, shape.padding, shape.dilations, shape.groups, "NCHW"
    )
    bias = rng.integers(-1000, 1000, shape.out_channels).astype(np.int32)
    acc += bias.reshape(1, -1, 1, 1)
    deviation = np.maximum(acc.std(axis=(0, 2, 3)), 1.0)
    scale = (_SPREAD / deviation * rng.uniform(0.5, 1, shape.out_channels)).astype(np.float32)
    node, inputs, expected = _epilogue(task, rng, x, acc, scale)
    node.attrs.update(
        gemm=False,
        weight=weight,
        bias=bias,
        scale=scale,
        strides=shape.strides,
        pads=shape.padding,
        dilations=shape.dilations,
        group=shape.groups,
    )
    node.attrs["in"] = Quantization(1.0, point, task.in_dtype)
    types = {name: TensorType.of(value) for name, value in inputs.items()}
    types["y"] = TensorType.of(expected)
    return Problem(Graph("task", list(inputs), ["y"], [node], types), inputs, expected)


def _words_in_pairs(rng: np.random.Generator, weight: np.ndarray) -> np.ndarray:
    """Weights like `weight` of which 16 bits hold the products of many pairs of words, if large go with small ones."""
    _, channels, _, columns = weight.shape
    element = np.arange(columns)[:, None] * channels + np.arange(channels)
    # Two words of one kind follow each other, and two large ones do not fit.
    large = (element // 8 % 2 == 0).T[:, None]
    most = np.broadcast_to(np.where(large, 48, 16), weight.shape)
    fitting = rng.integers(-most, most, dtype=np.int8, endpoint=True)
    fitting[::7], fitting[3::7] = most[::7], -most[3::7]
    return fitting


def _epilogue(
    task: KernelTask, rng: np.random.Generator, x: np.ndarray, acc: np.ndarray, scale: np.ndarray
) -> tuple[Node, dict[str, np.ndarray], np.ndarray]:
    """The node with what follows the accumulation, its inputs, and what it must give."""
    node = Node("QConv", ["x"], ["y"], {"out": None}, "task")
    inputs = {"x": x}
    channels = scale.reshape(1, -1, 1, 1)
    if task.out_dtype == "float32":
        return node, inputs, acc.astype(np.float32) * channels
    middle = "uint8" if task.residual else task.out_dtype
    own, other, total = _SCALES
    out = Quantization(own, _POINTS[middle], middle)
    low, high = out.range
    node.attrs.update(out=out, low=low, high=high)
    codes = requantize(acc, channels, out.zero_point, middle, lower=low, upper=high)
    if not task.residual:
        return node, inputs, codes
    inputs["other"] = _codes(rng, acc.shape, task.residual)
    second = Quantization(other, _POINTS[task.residual], task.residual)
    result = Quantization(total, _POINTS[task.out_dtype], task.out_dtype)
    low, high = result.range
    node.inputs.append("other")
    node.attrs["add"] = {
        "in": (out, second),
        "residual_first": False,
        "out": result,
        "low": low,
        "high": high,
    }
    factors = sum_factors(out.pair, second.pair, result.pair)
    expected = add_codes(codes, inputs["other"], factors, low, high, task.out_dtype)
    return node, inputs, expected


def _codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
