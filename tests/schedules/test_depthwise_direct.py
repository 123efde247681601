"""Depthwise kernels that read the image where it lies: exact for all geometries that they take, and chosen where they
pay."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lowgemm import ops, tiling
from lowgemm.ops import _conv_kernels
from lowgemm.packing import Axis, ConvShape, DirectDepthwisePacking, DotLayout
from lowgemm.targets import LEVELS

from convolutions import Convolution, check_kernel, requantizing
from isa import isas

CHANNELS = 72  # neither whole blocks of 32 nor of 64
WINDOWS = {
    "3x3": {"kernel": (3, 3), "padding": 1},
    "3x3-stride-2": {"kernel": (3, 3), "strides": 2, "padding": 1},
    "3x3-stride-2x1": {"kernel": (3, 3), "strides": (2, 1), "padding": 1},
    "3x3-stride-1x2": {"kernel": (3, 3), "strides": (1, 2), "padding": (0, 1, 2, 0)},
    "3x3-stride-3": {"kernel": (3, 3), "strides": 3, "padding": (2, 1, 1, 2)},
    "3x3-inside": {"kernel": (3, 3), "strides": 2},
    "5x5": {"kernel": (5, 5), "padding": 2},
    "5x5-stride-2": {"kernel": (5, 5), "strides": 2, "padding": (2, 1, 2, 2)},
    "2x2-stride-2": {"kernel": (2, 2), "strides": 2},
    "4x3": {"kernel": (4, 3), "padding": (1, 1, 2, 1)},
    "1x4-stride-2": {"kernel": (1, 4), "strides": 2, "padding": (0, 1, 0, 2)},
}


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Wherever the kernel can be taken it is; whether it was, of each convolution."""
    taken = []

    def takes(shape, target) -> bool:
        taken.append(tiling.direct_depthwise_takes(shape, target))
        return taken[-1]

    monkeypatch.setattr(_conv_kernels, "direct_depthwise_pays", takes)
    return taken


def check(conv: Convolution, isa: str, kind: str = "random") -> None:
    check_kernel(conv, isa, kind)


def stage(dtype: str, activation: Any = None) -> ops.Output:
    return requantizing(CHANNELS, dtype, activation)


@pytest.mark.parametrize("pixels", [1, 2, 4])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("isa", isas())
def test_every_window_is_exact(
    isa: str, window: str, pixels: int, direct: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiling.DirectDepthwiseConfig(pixels)
    monkeypatch.setattr(_conv_kernels, "default_direct_depthwise_config", lambda *_: config)
    conv = Convolution(
        (2, 10, 11, CHANNELS),
        CHANNELS,
        **WINDOWS[window],
        groups=CHANNELS,
        x_zero_point=7,
        output=stage("uint8"),
    )
    for kind in ("random", "alternating"):
        check(conv, isa, kind)
    assert all(direct) == (LEVELS[isa].dot_depth == 2)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("x_dtype", "dtype"), [("int8", "uint8"), ("uint8", "int8"), ("int8", "int8")]
)
@pytest.mark.parametrize("isa", isas())
def test_signs_activations_and_zero_points(
    isa: str, x_dtype: str, dtype: str, activation: str
) -> None:
    output = stage(dtype, activation)
    if activation == "leaky_relu":
        output = replace(output, slope=0.1)
    conv = Convolution(
        (1, 7, 8, CHANNELS),
        CHANNELS,
        (3, 3),
        2,
        1,
        groups=CHANNELS,
        x_dtype=x_dtype,
        x_zero_point=-3 if x_dtype == "int8" else 250,
        weight_zero_point=5,
        output=output,
    )
    check(conv, isa)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("isa", isas())
def test_planes_inside_and_outside(isa: str, stride: int, dilation: int) -> None:
    conv = Convolution(
        (2, 6, 5, 7, CHANNELS),
        CHANNELS,
        (3, 3, 3),
        stride,
        (dilation, 1, 1),
        (dilation, 1, 1),
        groups=CHANNELS,
        x_zero_point=100,
        output=stage("uint8"),
    )
    check(conv, isa)


@pytest.mark.parametrize(("batch", "stride"), [(1, 1), (4, 2)])
@pytest.mark.parametrize("isa", isas())
def test_what_is_prefetched_behind_an_image_is_not_used(isa: str, batch: int, stride: int) -> None:
    """Nor does a prefetch fault behind the last image."""
    strides, around = (stride, stride), (1, 1, 1, 1)
    shape = ConvShape(batch, 105, 103, CHANNELS, CHANNELS, (3, 3), strides, around, groups=CHANNELS)
    assert tiling.unstaged_prefetches(shape)
    x = (batch, 105, 103, CHANNELS)
    output = stage("uint8")
    check(Convolution(x, CHANNELS, (3, 3), stride, 1, groups=CHANNELS, output=output), isa)


@pytest.mark.emulated
@pytest.mark.parametrize("channels", [32, 64, 33])
@pytest.mark.parametrize("isa", isas())
def test_blocks_of_channels(isa: str, channels: int, direct: list[bool]) -> None:
    output = ops.Output("uint8", multiplier=1e-3, zero_point=3)
    shape = (1, 5, 3, channels)
    check(Convolution(shape, channels, (3, 3), 1, 1, groups=channels, output=output), isa)
    target = LEVELS[isa]
    assert direct == [target.dot_depth == 2 and channels >= target.vector_bits // 8]


def test_filters_are_packed_in_pairs_of_taps() -> None:
    w = np.random.default_rng(0).integers(-255, 256, (40, 1, 2, 3, 3))
    packing = DirectDepthwisePacking(DotLayout(8, 2, "int16", "int16"), (3, 3), 2, 2)
    assert packing.columns == 5
    assert packing.taps == [
        ((0, 0), (1, 0)),
        ((0, 1), (1, 1)),
        ((0, 2), (1, 2)),
        ((2, 0), (2, 1)),
        ((2, 2), None),
    ]
    packed = packing.pack(w)
    assert packed.shape == (2, 10, 4, 2, 4, 2) and packed.dtype == np.int16
    for block, first in enumerate((0, 8)):
        for plane in range(2):
            for number, pair in enumerate(packing.taps):
                for i, tap in enumerate(pair):
                    # [j][k][q] is channel 16 k + 4 j + q.
                    found = (
                        packed[block, plane * 5 + number, :, :, :, i].transpose(1, 0, 2).reshape(-1)
                    )
                    want = w[first : first + 32, 0, plane, *tap] if tap else np.zeros(32)
                    assert (found == want).all()


@pytest.mark.parametrize("pixels", [1, 2, 3, 4])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((4, 2), 3)])
def test_each_pixel_meets_each_tap_once(kernel: tuple[int, int], stride: int, pixels: int) -> None:
    packing = DirectDepthwisePacking(DotLayout(8, 2, "int16", "int16"), kernel, stride, pixels)
    for pixel in range(pixels):
        met = []
        for step in packing.steps:
            for at, number in step.uses:
                if at != pixel:
                    continue
                for place, tap in zip((step.first, step.second), packing.taps[number], strict=True):
                    if tap:
                        assert place == (tap[0], tap[1] + pixel * stride)
                        met.append(tap)
        assert sorted(met) == [(r, c) for r in range(kernel[0]) for c in range(kernel[1])]


def test_where_the_kernel_pays() -> None:
    """At a stride, and else for channels that fill vectors, with 5x5 filters where rows are long, and over three axes
    where most tiles lie inside of the image."""
    small = ConvShape(1, 14, 14, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), groups=64)
    two = {"strides": (2, 2)}
    five = {"kernel": (5, 5), "padding": (2, 2, 2, 2)}
    wide = {"in_channels": 512, "out_channels": 512, "groups": 512}
    ragged = {"in_channels": 36, "out_channels": 36, "groups": 36}
    large = {"height": 28, "width": 28}
    cases = [
        ({}, True),
        (two, True),
        ({"strides": (2, 1)}, True),
        ({"height": 7, "width": 7}, True),
        ({**large, **five}, False),
        ({**five, "width": 40}, True),
        ({**five, **wide, "height": 3, "width": 80}, True),
        (ragged, False),
        ({"in_channels": 48, "out_channels": 48, "groups": 48}, True),
        ({**two, **ragged}, True),
        ({**two, **five}, True),
        ({**two, **five, **wide}, False),
        ({"dilations": (2, 2)}, False),
        ({**two, "dilations": (2, 2)}, False),
        ({"out_channels": 128}, False),
        ({**two, "out_channels": 128}, False),
        ({**two, "kernel": (7, 7)}, False),
        ({"planes": Axis(8, 3, 1, 1, 1)}, False),
        ({**large, "planes": Axis(8, 3, 1, 1, 1)}, False),
        ({**large, "planes": Axis(32, 3, 1, 1, 1)}, True),
        ({**large, **five, "planes": Axis(32, 5, 1, 2, 2)}, False),
    ]
    for change, pays in cases:
        assert tiling.direct_depthwise_pays(replace(small, **change), LEVELS["avx2"]) == pays, (
            change
        )
    for level, target in LEVELS.items():
        without = target.dot_depth == 2
        assert tiling.direct_depthwise_pays(replace(small, **two), target) == without, level


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pixels"),
    [
        ((14, 14), 3, 1, 2),
        ((28, 28), 3, 1, 4),
        ((56, 56), 3, 2, 1),
        ((12, 80), 5, 1, 3),
        ((56, 56), 5, 2, 1),
        ((9, 1), 3, 1, 1),
    ],
)
def test_the_default_tile_covers_rows_and_sticks_out_of_few(
    size: tuple[int, int], kernel: int, stride: int, pixels: int
) -> None:
    before = kernel // 2
    padding = (before, before, before, before)
    square = (kernel, kernel)
    shape = ConvShape(1, *size, 64, 64, square, (stride, stride), padding, groups=64)
    assert tiling.default_direct_depthwise_config(shape, LEVELS["avx2"]).pixels == pixels
