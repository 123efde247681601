"""Convolution, depthwise convolution and GEMM equal the exact integers on every level, bit for bit."""

import numpy as np
import pytest

from lowgemm.passes import Quantization

import kernels
from conv_check import Conv, check
from isa import isas
from kernels import full_range

CONVOLUTIONS = {
    "1x1-few-pixels": Conv((1, 20, 7, 9), 24),
    "1x1-many-pixels": Conv((1, 8, 24, 20), 16),
    "1x1-strided": Conv((1, 12, 9, 8), 16, strides=(2, 2)),
    "1x1-strided-and-padded": Conv((2, 20, 9, 8), 24, strides=(2, 3), pads=(1, 0, 2, 1)),
    "1x1-strided-in-a-wide-border": Conv(
        (1, 27, 4, 2), 12, strides=(2, 1), pads=(2, 2, 1, 1), group=3
    ),
    "1x1-strided-many-pixels": Conv((1, 16, 44, 40), 32, strides=(2, 2)),
    "3x3-padded": Conv((1, 16, 11, 13), 32, (3, 3), pads=(1, 1, 1, 1)),
    "3x3-unpadded": Conv((1, 16, 10, 12), 32, (3, 3)),
    "3x3-padded-unevenly": Conv((1, 8, 9, 10), 16, (3, 3), pads=(0, 1, 2, 0)),
    "3x3-strided": Conv((1, 8, 12, 15), 16, (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3-strides-differ": Conv((1, 8, 9, 14), 16, (3, 3), (1, 3), (1, 1, 1, 1)),
    "3x3-dilated-rows": Conv((1, 8, 9, 8), 16, (3, 3), pads=(2, 1, 2, 1), dilations=(2, 1)),
    "3x3-dilated-columns": Conv((1, 6, 8, 11), 16, (3, 3), pads=(1, 2, 1, 2), dilations=(1, 2)),
    "5x5": Conv((1, 8, 9, 11), 16, (5, 5), pads=(2, 2, 2, 2)),
    "1x7": Conv((1, 4, 5, 12), 16, (1, 7), pads=(0, 3, 0, 3)),
    "7x1": Conv((1, 4, 12, 5), 16, (7, 1), pads=(3, 0, 3, 0)),
    "first-layer-7x7-strided-of-3-channels": Conv((1, 3, 21, 23), 16, (7, 7), (2, 2), (3, 3, 3, 3)),
    "depth-no-multiple-of-4": Conv((1, 5, 6, 7), 16),
    "depth-1": Conv((1, 1, 9, 7), 16, (3, 3), pads=(1, 1, 1, 1)),
    "8-outputs": Conv((1, 8, 6, 7), 8, (3, 3), pads=(1, 1, 1, 1)),
    "9-outputs": Conv((1, 4, 3, 2), 9),
    "13-outputs": Conv((1, 8, 6, 7), 13, (3, 3), pads=(1, 1, 1, 1)),
    "1-output": Conv((1, 8, 6, 7), 1, (3, 3), pads=(1, 1, 1, 1)),
    "40-outputs": Conv((1, 8, 6, 7), 40),
    "groups-of-whole-vectors": Conv((1, 16, 6, 7), 64, (3, 3), pads=(1, 1, 1, 1), group=2),
    "groups-merged": Conv((1, 32, 6, 7), 32, (3, 3), pads=(1, 1, 1, 1), group=8),
    "groups-all-merged": Conv((1, 9, 6, 7), 15, (3, 3), pads=(1, 1, 1, 1), group=3),
    "groups-1x1": Conv((1, 24, 6, 7), 48, group=3),
    "groups-of-17-outputs": Conv((1, 4, 3, 5), 34, group=2),
    "batch-of-3": Conv((3, 8, 6, 7), 16, (3, 3), pads=(1, 1, 1, 1)),
    "one-pixel-within-padding": Conv((1, 8, 1, 1), 16, (3, 3), pads=(1, 1, 1, 1)),
    "weights-larger-than-image": Conv((1, 64, 4, 5), 48, (3, 3), pads=(1, 1, 1, 1)),
}
DEPTHWISE = {
    "3x3": Conv((1, 32, 9, 11), 32, (3, 3), pads=(1, 1, 1, 1), group=32),
    "3x3-strided": Conv((1, 16, 10, 13), 16, (3, 3), (2, 2), (1, 1, 1, 1), group=16),
    "3x3-padded-unevenly": Conv((1, 16, 8, 9), 16, (3, 3), (2, 2), (0, 0, 1, 1), group=16),
    "3x3-unpadded": Conv((1, 16, 8, 9), 16, (3, 3), group=16),
    "5x5": Conv((1, 16, 9, 8), 16, (5, 5), pads=(2, 2, 2, 2), group=16),
    "5x5-strided": Conv((1, 16, 11, 9), 16, (5, 5), (2, 2), (2, 2, 2, 2), group=16),
    "7x7": Conv((1, 16, 8, 7), 16, (7, 7), pads=(3, 3, 3, 3), group=16),
    "1x3": Conv((1, 16, 6, 9), 16, (1, 3), pads=(0, 1, 0, 1), group=16),
    "dilated": Conv((1, 16, 9, 10), 16, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), group=16),
    "two-outputs-per-channel": Conv((1, 16, 6, 7), 32, (3, 3), pads=(1, 1, 1, 1), group=16),
    "three-outputs-per-odd-channel": Conv((1, 5, 6, 7), 15, (3, 3), pads=(1, 1, 1, 1), group=5),
    "8-channels": Conv((1, 8, 6, 7), 8, (3, 3), pads=(1, 1, 1, 1), group=8),
    "19-channels": Conv((1, 19, 6, 7), 19, (3, 3), pads=(1, 1, 1, 1), group=19),
    "batch-of-2": Conv((2, 16, 5, 6), 16, (3, 3), pads=(1, 1, 1, 1), group=16),
    "one-pixel-within-padding": Conv((1, 16, 1, 1), 16, (3, 3), pads=(1, 1, 1, 1), group=16),
}
PRODUCTS = {
    "one-row": Conv((1, 64), 48),
    "one-row-depth-37": Conv((1, 37), 24),
    "one-row-10-outputs": Conv((1, 40), 10),
    "one-output": Conv((9, 16), 1),
    "depth-1": Conv((5, 1), 16),
    "17-rows": Conv((17, 36), 32),
    "many-rows": Conv((450, 12), 24),
    "depth-1024": Conv((3, 1024), 32),
}
ALL = {
    **{f"conv-{name}": conv for name, conv in CONVOLUTIONS.items()},
    **{f"depthwise-{name}": conv for name, conv in DEPTHWISE.items()},
    **{f"gemm-{name}": conv for name, conv in PRODUCTS.items()},
}
# Other forms of the operator: one convolution for every way through the kernels.
FORMS = (
    "conv-1x1-few-pixels",
    "conv-1x1-strided",
    "conv-3x3-unpadded",
    "conv-3x3-padded-unevenly",
    "conv-first-layer-7x7-strided-of-3-channels",
    "conv-groups-merged",
    "conv-13-outputs",
    "depthwise-3x3-strided",
    "depthwise-5x5",
    "depthwise-19-channels",
    "gemm-one-row-depth-37",
    "gemm-17-rows",
)
RESIDUALS = (
    "conv-1x1-few-pixels",
    "conv-1x1-strided",
    "conv-3x3-padded",
    "conv-9-outputs",
    "gemm-17-rows",
)
FLOATS = ("conv-3x3-padded", "conv-13-outputs", "depthwise-19-channels", "gemm-one-row-10-outputs")


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("level", isas())
def test_u8(level: str, case: str) -> None:
    check(ALL[case], level)


@pytest.mark.parametrize("case", FORMS)
@pytest.mark.parametrize("level", isas())
def test_s8(level: str, case: str) -> None:
    check(ALL[case], level, "int8", "int8")


@pytest.mark.parametrize("case", FLOATS)
@pytest.mark.parametrize("level", isas())
def test_float_output(level: str, case: str) -> None:
    check(ALL[case], level, out_dtype="float32")


@pytest.mark.parametrize(("other", "out"), [("uint8", "uint8"), ("int8", "uint8")])
@pytest.mark.parametrize("case", RESIDUALS)
@pytest.mark.parametrize("level", isas())
def test_residual(level: str, case: str, other: str, out: str) -> None:
    check(ALL[case], level, out_dtype=out, residual=other)


@pytest.mark.parametrize("group", [1, 16], ids=["dense", "depthwise"])
@pytest.mark.parametrize("level", isas())
def test_numbers_beyond_int32_are_the_last_codes(level: str, group: int) -> None:
    """With such scales a rounded number fits no int32, which is not for packing instructions to see."""
    conv = Conv((1, 16, 4, 5), 16, group=group)
    rng = np.random.default_rng(7)
    x, w = full_range(rng, conv.x, "uint8"), full_range(rng, conv.w, "int8")
    params, out = Quantization(1.0, 0, "uint8"), Quantization(1.0, 0, "uint8")
    scale = np.full(conv.out, 1e8, np.float32)
    node = conv.node("c", w, np.zeros(conv.out, np.int32), scale, params, out, low=0, high=255)
    graph = kernels.graph_of([node], {"c/x": x}, {"c/y": (conv.out_shape, "uint8")})
    acc = conv.accumulate(x, w, 0)
    want = np.where(acc > 0, 255, 0).astype(np.uint8)
    assert np.abs(acc).max() * 1e8 > 2**31 and len(np.unique(want)) == 2
    assert np.array_equal(kernels.run(graph, level, {"c/x": x})["c/y"], want)
