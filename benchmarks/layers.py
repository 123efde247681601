"""Single layers: which ones there are, and the data that they are measured with."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lowgemm.quant import LARGEST_SUM, extreme_sums

SHAPES = Path(__file__).parent / "shapes"
FAMILIES: tuple[str, ...] = ("gemm", "conv", "depthwise")
_SEED = 0
_INPUT_ZERO_POINT = 43
_OUTPUT_ZERO_POINT = 128
_INPUT_SCALE = 0.02
_OUTPUT_SCALE = 0.05
# Accumulators spread so that most outputs do not saturate: ±128 quantized steps are four sigmas.
_SIGMA_STEPS = 32

_GEMM = re.compile(r"(\d+)x(\d+)x(\d+)")
_CONV = re.compile(r"([\dx]+) -> (\d+), ([\dx]+)((?: \w+ [\dx:]+)*)( transposed)?")


@dataclass(frozen=True)
class Layer:
    """A convolution over one to three axes; or, over none, a matrix product whose rows are the batch.

    Attributes:
        name: of the list that it is from.
        sizes, kernel, strides, dilations, output_pad: one for each axis.
        pads: begins, then ends.
    """

    name: str
    batch: int
    in_channels: int
    sizes: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    output_pad: tuple[int, ...] = ()

    @staticmethod
    def parse(name: str, text: str) -> Layer:
        """The layer that `shape` wrote: "64x800x320" (rows, columns, depth), or
        "1x3x224x224 -> 64, 7x7 stride 2 pad 3", where what is 1 or 0 may be missing.

        Raises:
            ValueError: the text is of neither form.
        """
        if found := _GEMM.fullmatch(text):
            rows, columns, depth = map(int, found.groups())
            return Layer(name, rows, depth, (), columns)
        found = _CONV.fullmatch(text)
        if not found:
            raise ValueError(f'"{text}" is no layer')
        batch, channels, *sizes = _numbers(found[1])
        rank = len(sizes)
        words = found[4].split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        begins, _, ends = given.pop("pad", "0").partition(":")
        layer = Layer(
            name,
            batch,
            channels,
            tuple(sizes),
            int(found[2]),
            _numbers(found[3]),
            _per_axis(given.pop("stride", "1"), rank),
            _per_axis(begins, rank) + _per_axis(ends or begins, rank),
            _per_axis(given.pop("dilation", "1"), rank),
            int(given.pop("groups", "1")),
            bool(found[5]),
            _per_axis(given.pop("output_pad", "0"), rank),
        )
        if given or len(layer.kernel) != rank:
            raise ValueError(f'"{text}" is no layer')
        return layer

    @property
    def shape(self) -> str:
        """What `parse` reads."""
        if self.is_gemm:
            return f"{self.batch}x{self.out_channels}x{self.in_channels}"
        text = f"{_joined((self.batch, self.in_channels, *self.sizes))} -> {self.out_channels}, "
        text += f"{_joined(self.kernel)} stride {_short(self.strides)}"
        begins, ends = self.pads[: self.rank], self.pads[self.rank :]
        text += f" pad {_short(begins)}" + (f":{_short(ends)}" if ends != begins else "")
        text += f" dilation {_short(self.dilations)}" if max(self.dilations) > 1 else ""
        text += f" groups {self.groups}" if self.groups > 1 else ""
        text += f" output_pad {_short(self.output_pad)}" if any(self.output_pad) else ""
        return text + (" transposed" if self.transposed else "")

    @property
    def rank(self) -> int:
        return len(self.sizes)

    @property
    def is_gemm(self) -> bool:
        return self.rank == 0

    @property
    def out_sizes(self) -> tuple[int, ...]:
        found = []
        for axis, size in enumerate(self.sizes):
            span = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            pad = self.pads[axis] + self.pads[axis + self.rank]
            if self.transposed:
                more = span + self.output_pad[axis] - pad
                found.append((size - 1) * self.strides[axis] + more)
            else:
                found.append((size + pad - span) // self.strides[axis] + 1)
        return tuple(found)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.batch, self.out_channels, *self.out_sizes

    @property
    def depth(self) -> int:
        """Products that one output sums; of a transposed convolution with a stride some have fewer."""
        return self.in_channels // self.groups * math.prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulates; of a transposed convolution without those of the holes between inputs."""
        if self.transposed:
            taps = math.prod(self.kernel) * self.out_channels // self.groups
            return self.batch * self.in_channels * math.prod(self.sizes) * taps
        return self.batch * math.prod(self.out_sizes) * self.out_channels * self.depth

    @property
    def weight_bytes(self) -> int:
        return self.out_channels * self.depth

    @property
    def moved(self) -> int:
        """Bytes of input, weight and output."""
        inputs = self.batch * self.in_channels * math.prod(self.sizes)
        return inputs + self.weight_bytes + math.prod(self.out_shape)

    @cached_property
    def data(self) -> LayerData:
        """The same data at every call: activations over the whole range of their type, and `bell_shaped` weights.

        No sum of two neighbouring products leaves 16 bits (`bound_pairs`): so engines that sum pairs there are as exact
        as the others, and all have the same work with the same result.
        """
        generator = np.random.default_rng(_SEED)
        x = generator.integers(0, 256, (self.batch, self.in_channels, *self.sizes), np.uint8)
        channels = self.in_channels // self.groups
        shape = (self.out_channels, channels, *self.kernel)
        weight = bound_pairs(bell_shaped(generator, shape))
        spread = np.sqrt(self.depth) * 74 * weight.std()  # of x - 43 and of the weights, roughly
        scale = _SIGMA_STEPS * _OUTPUT_SCALE / (spread * _INPUT_SCALE)
        scales = (scale * generator.uniform(0.5, 1, self.out_channels)).astype(np.float32)
        if self.transposed:  # PyTorch's take one scale only
            scales[:] = scales[0]
        bias = generator.integers(-1000, 1000, self.out_channels, np.int32)
        # The zero point is not the middle: bring the outputs back into the middle of their range.
        sums = weight.reshape(self.out_channels, -1).sum(1, dtype=np.int32)
        bias -= (sums * (128 - _INPUT_ZERO_POINT)).astype(np.int32)
        return LayerData(x, weight, scales, bias)

    def stored_weight(self, weight: np.ndarray) -> np.ndarray:
        """`weight` `(out, in / groups, *kernel)` as ONNX and PyTorch keep that of a transposed convolution.

        That is `(in, out / groups, *kernel)`; of others it is unchanged.
        """
        if not self.transposed:
            return weight
        split = weight.reshape(self.groups, -1, *weight.shape[1:])
        stored = np.swapaxes(split, 1, 2).reshape(self.in_channels, -1, *self.kernel)
        return np.ascontiguousarray(stored)


@dataclass(frozen=True)
class LayerData:
    """`x` uint8, `weight` int8 [out, in/groups, *kernel], its scales, `bias` in accumulator steps."""

    x: np.ndarray
    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    x_scale: float = _INPUT_SCALE
    x_zero_point: int = _INPUT_ZERO_POINT
    out_scale: float = _OUTPUT_SCALE
    out_zero_point: int = _OUTPUT_ZERO_POINT

    @property
    def multiplier(self) -> np.ndarray:
        """What a sum is multiplied with, for each output channel, float64."""
        return np.float64(np.float32(self.x_scale)) * self.scales / np.float32(self.out_scale)


def bell_shaped(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """int8 weights [out, in, *kernel] distributed as those of networks are, quantized as `lowgemm.quantize` does it.

    That is normally, with a scale for each output channel: it has the largest weight at 127, or is as much wider as
    lets 16 bits hold all products of two neighbours.
    """
    weight = generator.standard_normal(shape, np.float32)
    runs = np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    widest = np.maximum(np.abs(runs).max(1) / 127, extreme_sums(runs, 1) / LARGEST_SUM)
    return np.rint(weight / widest.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)


def bound_pairs(weight: np.ndarray) -> np.ndarray:
    """`weight` int8 [out, in, *kernel] with smaller weights where two neighbours could saturate 16 bits.

    vpmaddubsw sums the products of two neighbouring bytes of uint8 activations and int8 weights in 16 bits. FBGEMM's
    benchmarks and tests lower weights so that no activations make it saturate; this does the same. Neighbours are those
    of the reduction with channels innermost, as engines order it, and with channels outermost (for depthwise layers and
    for engines that multiply unfolded images); every two of them, since an engine may begin anywhere.
    """
    bounded = weight.copy()
    channels_last = np.moveaxis(bounded, 1, -1)
    for order in (channels_last, bounded):
        flat = order.reshape(len(weight), -1).astype(np.int16)
        for k in range(1, flat.shape[1]):
            before = flat[:, k - 1]
            low, high = -LARGEST_SUM - np.minimum(before, 0), LARGEST_SUM - np.maximum(before, 0)
            flat[:, k] = flat[:, k].clip(low, high)
        order[...] = flat.reshape(order.shape)
    return bounded


def family(name: str) -> Iterator[Layer]:
    """The layers of one of `FAMILIES`: FBGEMM's, then those of real models."""
    yield from read(f"{name}.txt")
    yield from read(f"{name}_models.txt")


def read(name: str) -> Iterator[Layer]:
    """The layers listed in the file `name` of shapes/, under the names of their sections."""
    section = ""
    for line in (SHAPES / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            yield Layer.parse(section, line)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _per_axis(text: str, rank: int) -> tuple[int, ...]:
    numbers = _numbers(text)
    return numbers * rank if len(numbers) == 1 else numbers


def _joined(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def _short(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else _joined(numbers)
