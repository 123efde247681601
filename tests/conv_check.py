"""Checking quantized convolutions and GEMMs against the exact integers of the reference."""

from dataclasses import dataclass

import numpy as np

from lowgemm.graph import Node
from lowgemm.packing import ConvShape
from lowgemm.passes import Quantization
from lowgemm.quant import (
    add_codes,
    hard_swish_codes,
    hard_swish_factors,
    requantize,
    sum_factors,
)
from lowgemm.reference import conv2d_i32, gemm_i32

import kernels

# The middle of the range, both ends, and neither; by dtype.
POINTS = {"uint8": (128, 0, 255, 43), "int8": (0, -128, 127, 43)}


@dataclass(frozen=True)
class Conv:
    """A convolution of `x` `(n, c, h, w)`; a GEMM where `x` has two axes."""

    x: tuple[int, ...]
    out: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1

    @property
    def gemm(self) -> bool:
        return len(self.x) == 2

    @property
    def w(self) -> tuple[int, int, int, int]:
        return (self.out, self.x[1] // self.group, *self.kernel)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`(n, out, h, w)`, or `(rows, out)`."""
        if self.gemm:
            return (self.x[0], self.out)
        batch, channels, height, width = self.x
        size = (batch, height, width, channels, self.out)
        shape = ConvShape(*size, self.kernel, self.strides, self.pads, self.dilations, self.group)
        return (self.x[0], self.out, shape.out_height, shape.out_width)

    def accumulate(self, x: np.ndarray, w: np.ndarray, x_point: int) -> np.ndarray:
        """The exact sums, int32 `(n, out, h, w)` or `(rows, out)`."""
        if self.gemm:
            return gemm_i32(x, w[:, :, 0, 0].T, x_point)
        return conv2d_i32(
            x, w, x_point, 0, self.strides, self.pads, self.dilations, self.group, "NCHW"
        )

    def node(self, name: str, w: np.ndarray, bias, scale, x_params, out, **attrs) -> Node:
        attrs = {
            "gemm": self.gemm,
            "weight": w,
            "bias": bias,
            "scale": scale,
            "in": x_params,
            "out": out,
            **attrs,
        }
        if not self.gemm:
            attrs.update(strides=self.strides, pads=self.pads, dilations=self.dilations)
            attrs["group"] = self.group
        return Node("QConv", [f"{name}/x"], [f"{name}/y"], attrs, name)


def _scales(rng: np.random.Generator, acc: np.ndarray, kind: str) -> np.ndarray:
    """One scale per channel that spreads the sums over the output's range; a half for ties."""
    if kind == "ties":
        return np.full(acc.shape[1], 0.5, np.float32)
    spread = max(float(acc.std()), float(np.abs(acc).max()) / 100, 1.0)
    return (rng.uniform(20, 90, acc.shape[1]) / spread).astype(np.float32)


def check(
    conv: Conv,
    level: str,
    in_dtype: str = "uint8",
    out_dtype: str = "uint8",
    threads: int = 1,
    residual: str | None = None,
    hard_swish: bool = False,
    kinds: tuple[str, ...] = tuple(kernels.HARD_DATA),
) -> None:
    """Compare the kernel of `conv` with the reference on all kinds of hard data, zero points and clamps.

    The nodes have the same form, so one kernel serves them all. `out_dtype` "float32" is the form without
    requantization; `residual` is the dtype of an added operand. With `hard_swish` that of the codes follows.
    """
    rng = np.random.default_rng(list(map(ord, f"{conv}{in_dtype}{out_dtype}{residual}")))
    nodes, inputs, outputs, expected = [], {}, {}, {}
    for index, kind in enumerate(kinds):
        x, w = kernels.HARD_DATA[kind](rng, conv.x, in_dtype, conv.w)
        x_params = Quantization(1.0, POINTS[in_dtype][index % 4], in_dtype)
        acc = conv.accumulate(x, w, x_params.zero_point)
        # An odd bias would move every second tie; an even one keeps them where they are.
        bias = (rng.integers(-500, 500, conv.out) * 2).astype(np.int32)
        if kind == "ties":
            bias //= 100
        channels = (1, -1, *[1] * (len(conv.x) - 2))
        acc = acc + bias.reshape(channels)
        scale = _scales(rng, acc, kind)
        inputs[f"{kind}/x"] = x
        if out_dtype == "float32":
            nodes.append(conv.node(kind, w, bias, scale, x_params, None))
            want = acc.astype(np.float32) * scale.reshape(channels)
        else:
            middle = "uint8" if residual or hard_swish else out_dtype
            out = Quantization(1.0, POINTS[middle][(index + 1) % 4], middle)
            low, high = out.range
            if index % 2:  # as a fused ReLU6 leaves it
                low, high = max(low, out.zero_point - 40), min(high, out.zero_point + 90)
            node = conv.node(kind, w, bias, scale, x_params, out, low=low, high=high)
            want = requantize(
                acc, scale.reshape(channels), out.zero_point, middle, lower=low, upper=high
            )
            if residual:
                other = kernels.full_range(rng, acc.shape, residual)
                want = _add_residual(node, want, other, out, out_dtype, index)
                inputs[f"{kind}/other"] = other
            if hard_swish:
                want = _add_hard_swish(node, want, out_dtype, index)
            nodes.append(node)
        outputs[f"{kind}/y"] = (want.shape, out_dtype)
        expected[f"{kind}/y"] = want
    graph = kernels.graph_of(nodes, inputs, outputs)
    got = kernels.run(graph, level, inputs, threads)
    for name, want in expected.items():
        assert got[name].dtype == want.dtype
        assert np.array_equal(got[name], want), name


def _add_residual(node: Node, q, other, params: Quantization, out_dtype: str, index: int):
    """Let `node` add `other`, every second time as the sum's first operand."""
    scales = [(0.5, 1.5, 1.0), (0.37, 0.21, 0.29), (0.25, 0.25, 0.5)][index % 3]
    first = Quantization(scales[0], params.zero_point, params.dtype)
    second = Quantization(scales[1], POINTS[other.dtype.name][index % 4], other.dtype.name)
    out = Quantization(scales[2], POINTS[out_dtype][(index + 2) % 4], out_dtype)
    low, high = out.range
    node.inputs.append(f"{node.name}/other")
    residual_first = index % 2 == 1
    operands = (other, second, q, first) if residual_first else (q, first, other, second)
    a, a_params, b, b_params = operands
    node.attrs["add"] = {
        "in": (a_params, b_params),
        "residual_first": residual_first,
        "out": out,
        "low": low,
        "high": high,
    }
    return add(a, b, a_params, b_params, out)


def add(a, b, first: Quantization, second: Quantization, out: Quantization) -> np.ndarray:
    """The sum of codes as `quant` defines it."""
    factors = sum_factors(first.pair, second.pair, out.pair)
    return add_codes(a, b, factors, *out.range, out.dtype)


def _add_hard_swish(node: Node, q, out_dtype: str, index: int):
    """Let `node` end with a hard-swish, with a factor and a term every second time."""
    params: Quantization = node.attrs["out"]
    # Of steps that leave some codes beyond -3 and 3, and of coarser ones.
    step = (0.05, 0.2, 0.03)[index % 3]
    params = node.attrs["out"] = Quantization(step, params.zero_point, params.dtype)
    out = Quantization(1.3 * step, POINTS[out_dtype][(index + 2) % 4], out_dtype)
    real = (1.0, 0.0) if index % 2 else (0.7, -0.2)
    factors = hard_swish_factors(params.pair, out.pair, *real)
    node.attrs["hard_swish"] = {"factors": factors, "out": out}
    return hard_swish_codes(q.astype(np.int64) - params.zero_point, factors, out_dtype)
