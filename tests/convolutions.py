"""Convolutions of `lowgemm.ops` beside the oracle: exact sums, then the output stage, compared bit by bit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm import ops, reference

from gemm_check import added, same, stage
from kernels import HARD_DATA

FBGEMM_TABLES = json.loads((Path(__file__).parent / "conformance/fbgemm_shapes.json").read_text())[
    "conformance_tests"
]
# Elements of the input from which on one image of a batch is enough.
LARGE = 2_000_000


@dataclass(frozen=True)
class Convolution:
    """A convolution of `x` `(batch, *sizes, channels)`; the other fields are `ops.pack_conv`'s."""

    x: tuple[int, ...]
    out: int
    kernel: tuple[int, ...]
    strides: Any = 1
    padding: Any = 0
    dilations: Any = 1
    groups: int = 1
    transposed: bool = False
    output_padding: Any = 0
    x_dtype: str = "uint8"
    x_zero_point: int = 0
    weight_zero_point: Any = 0
    output: ops.Output = field(default_factory=ops.Output)

    @property
    def w(self) -> tuple[int, ...]:
        """The weight's shape."""
        ends = (self.x[-1], self.out) if self.transposed else (self.out, self.x[-1])
        return (ends[0], ends[1] // self.groups, *self.kernel)

    def operands(
        self, rng: np.random.Generator, kind: str = "random"
    ) -> tuple[np.ndarray, np.ndarray]:
        """`x` and the weight, of one of `kernels.HARD_DATA`."""
        return HARD_DATA[kind](rng, self.x, self.x_dtype, self.w)

    def pack(self, w: np.ndarray, level: str, **options: Any) -> ops.PackedConv:
        """`w` packed, for a level."""
        return ops.pack_conv(
            w,
            x_dtype=self.x_dtype,
            x_zero_point=self.x_zero_point,
            weight_zero_point=self.weight_zero_point,
            strides=self.strides,
            padding=self.padding,
            dilations=self.dilations,
            groups=self.groups,
            transposed=self.transposed,
            output_padding=self.output_padding,
            output=self.output,
            target=level,
            **options,
        )

    def sums(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The exact sums."""
        rank = len(self.kernel)
        pads = self._each(self.padding)
        return reference.conv_i32(
            x,
            w,
            self.x_zero_point,
            self.weight_zero_point,
            self._each(self.strides),
            pads if len(pads) == 2 * rank else pads * 2,
            self._each(self.dilations),
            self.groups,
            transposed=self.transposed,
            output_padding=self._each(self.output_padding),
        )

    def expected(
        self, x: np.ndarray, w: np.ndarray, residual: np.ndarray | None = None
    ) -> np.ndarray:
        """What the oracle gives; bfloat16 as its bits."""
        return self.finished(self.sums(x, w), residual)

    def finished(self, sums: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        """What the oracle's output stage makes of the sums."""
        return reference.output_stage(
            sums,
            groups=self.groups,
            residual=None if residual is None else added(self.output, residual),
            **stage(self.output, self.out),
        )

    def check(self, packed: ops.PackedConv, x: np.ndarray, w: np.ndarray, **extras: Any) -> None:
        """A call gives what the oracle does, bit for bit."""
        wanted = self.expected(x, w, **extras)
        assert packed.out_shape(x.shape) == wanted.shape
        same(packed(x, **extras), wanted)

    def _each(self, value: Any) -> tuple[int, ...]:
        return (value,) * len(self.kernel) if isinstance(value, int) else tuple(value)


def check_kernel(conv: Convolution, level: str, kind: str) -> None:
    """Compare a kernel's result with the oracle, for data of one of `kernels.HARD_DATA`."""
    x, w = conv.operands(np.random.default_rng(0), kind)
    conv.check(conv.pack(w, level), x, w)


def requantizing(channels: int, dtype: str, activation: Any = None) -> ops.Output:
    """An output stage of codes, with a factor and a bias of each channel."""
    rng = np.random.default_rng(1)
    return ops.Output(
        dtype,
        multiplier=rng.uniform(1e-4, 4e-3, channels).astype(np.float32),
        zero_point={"uint8": 9, "int8": -11}[dtype],
        bias=rng.integers(-5000, 5000, channels, np.int32),
        activation=activation,
    )


def fbgemm_convolutions(table: str) -> Iterator[Convolution]:
    """The rows of a table of FBGEMM's tests, from `fbgemm_shapes.json`."""
    rows = FBGEMM_TABLES[table]
    rank = 3 if table.endswith("3d") else 2
    for row in rows["shapes"]:
        if isinstance(row, dict):
            pads = (*row["pad_begin"], *row["pad_end"])
            yield Convolution(
                (row["MB"], *row["IN_DIM"], row["IC"]),
                row["OC"],
                tuple(row["K"]),
                tuple(row["stride"]),
                pads,
                tuple(row["dilation"]),
                row["G"],
                row["transposed"],
                tuple(row["output_pad"]),
            )
            continue
        batch, channels, *rest = row
        sizes = rest[:rank]
        strides, kernel = ([rest[2]] * 2, [rest[3]] * 2) if rank == 2 else (rest[3:6], rest[6:])
        batch = 1 if channels * np.prod(sizes) > LARGE else batch
        for each in rows.get("oc_per_g", [1]):
            yield Convolution(
                (batch, *sizes, channels),
                channels * each,
                tuple(kernel),
                strides,
                [k // 2 for k in kernel],
                groups=channels,
            )
