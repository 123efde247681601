"""FBGEMM's tests of convolutions by fused im2col (test/Im2ColFusedRequantizeTest.cc), against the oracle with ==.

Its shapes with its numbers of groups, in 32-bit and in 16-bit accumulation, with the weight whole and with outliers in
a sparse matrix (its SConv) by turns, with one group of symmetric weights or several with zero points, a bias and its
granularities by turns. Data has the whole range, so that 16-bit sums saturate. Images are cut where nothing but the
time depends on their size.
"""

from dataclasses import replace

import numpy as np
import pytest

from lowgemm import ops, reference

from convolutions import Convolution, fbgemm_convolutions
from gemm_check import stage
from isa import isas
from kernels import full_range

A_ZERO_POINT, ZERO_POINT = 43, 5
OUTLIERS = 0.02
GRANULARITIES = ("TENSOR", "GROUP", "OUT_CHANNEL")
# Pixels along an axis of a large image: two vectors of windows and an odd rest.
LARGE = 39


def cases() -> list[Convolution]:
    """FBGEMM's, in one group and in four where channels allow it."""
    found = []
    for table in ("im2col_2d", "im2col_3d"):
        for conv in fbgemm_convolutions(table):
            sizes = [min(size, LARGE) for size in conv.x[1:-1]]
            conv = replace(conv, x=(conv.x[0], *sizes, conv.x[-1]), x_zero_point=A_ZERO_POINT)
            for groups in {conv.groups, 1, 4}:
                if conv.x[-1] % groups == 0 and conv.out % groups == 0:
                    found.append(replace(conv, groups=groups))
    return list(dict.fromkeys(found))


def operands(number: int) -> tuple[np.ndarray, np.ndarray, Convolution]:
    """Input, weight of the whole range, and the convolution with zero points of its weight."""
    rng = np.random.default_rng(number)
    conv = cases()[number]
    x, w = full_range(rng, conv.x, "uint8"), full_range(rng, conv.w, "int8")
    zeros = rng.integers(-50, -10, count(number, conv), endpoint=True) if conv.groups > 1 else 0
    return x, w, replace(conv, weight_zero_point=zeros)


def count(number: int, conv: Convolution) -> int:
    """How many multipliers, and zero points, there are."""
    return {"TENSOR": 1, "GROUP": conv.groups, "OUT_CHANNEL": conv.out}[GRANULARITIES[number % 3]]


def requantized(number: int, sums: np.ndarray, conv: Convolution) -> ops.Output:
    """uint8 codes, most of which are not clamped."""
    rng = np.random.default_rng(number)
    spread = max(int(sums.std()), 1)
    each = rng.uniform(0.5, 1.5, count(number, conv))
    multiplier = (60 / spread * each).astype(np.float32)
    bias = rng.integers(-spread, spread, conv.out, np.int32, endpoint=True)
    return ops.Output("uint8", multiplier, ZERO_POINT, bias if number % 4 < 2 else None)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("number", range(len(cases())))
def test_sums_of_16_bits(isa: str, number: int, conformance) -> None:
    x, w, conv = operands(number)
    outliers = number % 2 == 1
    if outliers:
        rng = np.random.default_rng(number)
        small = rng.integers(-64, 64, w.shape).astype(np.int8)
        w = np.where(rng.random(w.shape) < OUTLIERS, w, small)
    sums = reference.conv_acc16(
        x,
        w,
        A_ZERO_POINT,
        conv.weight_zero_point,
        conv.strides,
        conv.padding,
        conv.dilations,
        conv.groups,
        outliers=outliers,
    )
    output = requantized(number, sums, conv)
    packed = ops.pack_conv_acc16(
        w,
        x_zero_point=A_ZERO_POINT,
        weight_zero_point=conv.weight_zero_point,
        strides=conv.strides,
        padding=conv.padding,
        dilations=conv.dilations,
        groups=conv.groups,
        outliers=outliers,
        output=output,
        target=isa,
    )
    wanted = reference.output_stage(sums, groups=conv.groups, **stage(output, conv.out))
    np.testing.assert_array_equal(packed(x), wanted)
    conformance("conv_acc16 im2col", isa)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("number", range(len(cases())))
def test_sums_of_32_bits(isa: str, number: int, conformance) -> None:
    x, w, conv = operands(number)
    sums = conv.sums(x, w)
    conv = replace(conv, output=requantized(number, sums, conv))
    np.testing.assert_array_equal(conv.pack(w, isa)(x), conv.finished(sums))
    conformance("conv im2col in groups", isa)
