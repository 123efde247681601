"""FBGEMM's tests of its convolutions, against the oracle with ==.

Im2ColFusedRequantizeTest, UniConvTest, GConvTest, I8DepthwiseTest and I8DirectconvTest: their shapes from
`fbgemm_shapes.json`, their data, granularities and zero points; and besides, data of the whole range, which saturates
pairs of 16 bits. The bias is int32 or float32, by turns, because each has a kernel of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from lowgemm import ops

from convolutions import Convolution, fbgemm_convolutions
from gemm_check import same
from isa import isas
from kernels import full_range

GRANULARITIES = ("TENSOR", "GROUP", "OUT_CHANNEL")
ZERO_POINT = 5


@dataclass(frozen=True)
class Data:
    """The ranges, ends included, of what FBGEMM draws for a table of shapes."""

    x: tuple[int, int]
    w: tuple[int, int]
    x_zero: int
    w_zero: tuple[int, int]


IM2COL = Data((0, 255), (-128, 127), 43, (-50, -10))
UNIFIED = Data((0, 5), (-4, 4), 4, (-3, 3))
DEPTHWISE = Data((0, 86), (-16, 16), 43, (5, 5))
TABLES = {
    "im2col_2d": IM2COL,
    "im2col_3d": IM2COL,
    "uniconv_1d": UNIFIED,
    "uniconv_2d": UNIFIED,
    "gconv_2d": UNIFIED,
    "gconv_3d": UNIFIED,
    "depthwise_2d": DEPTHWISE,
    "depthwise_3d": DEPTHWISE,
    "directconv_transposed": UNIFIED,
}


CASES = [(table, number) for table in TABLES for number, _ in enumerate(fbgemm_convolutions(table))]


def variants(
    rng: np.random.Generator, conv: Convolution, data: Data
) -> Iterator[tuple[Convolution, np.ndarray, np.ndarray, str]]:
    """Zero points, data and the granularity of multipliers, for one kernel."""

    def drawn(limits: tuple[int, int], shape, dtype: type = np.int64) -> np.ndarray:
        return rng.integers(*limits, shape, dtype, endpoint=True)

    for granularity in GRANULARITIES:
        zeros = drawn(data.w_zero, count(granularity, conv))
        x, w = drawn(data.x, conv.x, np.uint8), drawn(data.w, conv.w, np.int8)
        yield replace(conv, x_zero_point=data.x_zero, weight_zero_point=zeros), x, w, granularity
    x, w = full_range(rng, conv.x, "uint8"), full_range(rng, conv.w, "int8")
    yield conv, x, w, "OUT_CHANNEL"


def count(granularity: str, conv: Convolution) -> int:
    return {"TENSOR": 1, "GROUP": conv.groups, "OUT_CHANNEL": conv.out}[granularity]


def requantized(
    rng: np.random.Generator, sums: np.ndarray, conv: Convolution, each: int, real: bool
) -> ops.Output:
    """uint8 codes, most of which are not clamped."""
    spread = max(int(sums.std()), 1)
    multiplier = (60 / spread * rng.uniform(0.5, 1.5, each)).astype(np.float32)
    bias = rng.integers(-int(spread), int(spread), conv.out, endpoint=True)
    bias_scale: Any = None
    if real:
        bias_scale = rng.uniform(0.1, 1, each).astype(np.float32)
        bias = bias * np.repeat(bias_scale, conv.out // each)
    kind = np.float32 if real else np.int32
    return ops.Output("uint8", multiplier, ZERO_POINT, bias.astype(kind), bias_scale)


@lru_cache(maxsize=1)
def oracle(table: str, number: int) -> list[tuple[Convolution, np.ndarray, np.ndarray, np.ndarray]]:
    """Convolutions for one kernel with their operands and results, which all levels share."""
    rng = np.random.default_rng(number)
    (conv,) = (each for n, each in enumerate(fbgemm_convolutions(table)) if n == number)
    found = []
    for variant, x, w, granularity in variants(rng, conv, TABLES[table]):
        sums = variant.sums(x, w)
        output = requantized(rng, sums, conv, count(granularity, conv), number % 2 == 1)
        variant = replace(variant, output=output)
        found.append((variant, x, w, variant.finished(sums)))
    return found


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("table", "number"), CASES)
def test_requantized(isa: str, table: str, number: int, conformance) -> None:
    cases = oracle(table, number)
    for conv, x, w, wanted in cases:
        same(conv.pack(w, isa)(x), wanted)
    conformance(f"conv {table.replace('_', ' ')}", isa, len(cases))
