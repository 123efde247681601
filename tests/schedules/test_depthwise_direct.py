"""Depthwise kernels that read the image where it lies: exact for all geometries that they take, and chosen where they
pay."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lowgemm import ops, tiling
from lowgemm.ops import _conv_kernels
from lowgemm.packing import Axis, ConvShape, DirectDepthwisePacking, DotLayout
from lowgemm.targets import LEVELS, CpuTarget

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


def copying(monkeypatch: pytest.MonkeyPatch, pixels: int, copied: str) -> None:
    """Tiles of so many pixels, and images that are copied: none, in parts of one block of channels, or whole."""

    def config(shape: ConvShape, target: CpuTarget, threads: int) -> tiling.DirectDepthwiseConfig:
        one = tiling.DirectDepthwiseConfig(min(pixels, shape.out_width))
        order = tiling.direct_depthwise_packing(shape, target, one).order
        blocks = {"no": 0, "parts": 1, "whole": order.blocks(shape.out_channels)}
        return replace(one, copied=blocks[copied])

    monkeypatch.setattr(_conv_kernels, "default_direct_depthwise_config", config)


@pytest.mark.parametrize(
    ("pixels", "copied"),
    [(1, "no"), (2, "no"), (4, "no"), (1, "parts"), (2, "whole"), (7, "whole")],
)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("isa", isas())
def test_every_window_is_exact(
    isa: str,
    window: str,
    pixels: int,
    copied: str,
    direct: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conv = Convolution(
        (2, 10, 11, CHANNELS),
        CHANNELS,
        **WINDOWS[window],
        groups=CHANNELS,
        x_zero_point=7,
        output=stage("uint8"),
    )
    copying(monkeypatch, pixels, copied)
    for kind in ("random", "alternating"):
        check(conv, isa, kind)
    assert direct and all(direct)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("x_dtype", "dtype"), [("int8", "uint8"), ("uint8", "int8"), ("int8", "int8")]
)
@pytest.mark.parametrize("copied", ["no", "whole"])
@pytest.mark.parametrize("isa", isas())
def test_signs_activations_and_zero_points(
    isa: str,
    copied: str,
    x_dtype: str,
    dtype: str,
    activation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copying(monkeypatch, 1, copied)
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


@pytest.mark.parametrize("copied", ["no", "parts", "whole"])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("isa", isas())
def test_planes_inside_and_outside(
    isa: str, stride: int, dilation: int, copied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying(monkeypatch, 2, copied)
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


@pytest.mark.parametrize(
    ("images", "stride"), [((1, 105, 103), 1), ((4, 105, 103), 2), ((250, 7, 7), 1)]
)
@pytest.mark.parametrize("isa", isas())
def test_what_is_prefetched_behind_an_image_is_not_used(
    isa: str, images: tuple[int, int, int], stride: int
) -> None:
    """Nor does a prefetch fault behind the last image."""
    strides, around = (stride, stride), (1, 1, 1, 1)
    shape = ConvShape(*images, CHANNELS, CHANNELS, (3, 3), strides, around, groups=CHANNELS)
    assert tiling.unstaged_prefetches(shape)
    copied = tiling.default_direct_depthwise_config(shape, LEVELS[isa], 2).copied
    assert (copied > 0) == (images[1] == 7), "small images are copied, all channels of them"
    x = (*images, CHANNELS)
    output = stage("uint8")
    check(Convolution(x, CHANNELS, (3, 3), stride, 1, groups=CHANNELS, output=output), isa)


@pytest.mark.emulated
@pytest.mark.parametrize("channels", [32, 48, 64, 33, 96, 130])
@pytest.mark.parametrize("isa", isas())
def test_blocks_of_channels(isa: str, channels: int, direct: list[bool]) -> None:
    output = ops.Output("uint8", multiplier=1e-3, zero_point=3)
    shape = (1, 5, 3, channels)
    check(Convolution(shape, channels, (3, 3), 1, 1, groups=channels, output=output), isa)
    assert direct == [True]


def test_filters_are_packed_in_words_of_two_taps() -> None:
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


def test_words_of_four_taps_are_of_rows_or_of_as_many_columns_as_have_room() -> None:
    layout = DotLayout(16, 4, "uint8", "int8")
    rows = tuple((row, 1) for row in range(4))
    three = DirectDepthwisePacking(layout, (3, 3), 1, 2)
    assert three.taps[1] == (*rows[:3], None) and len(three.taps) == 3
    five = DirectDepthwisePacking(layout, (5, 5), 1, 1)
    assert rows in five.taps and ((4, 0), (4, 1), (4, 2), (4, 3)) in five.taps
    assert len(five.steps) == len(five.taps) == 7
    w = np.random.default_rng(0).integers(-128, 128, (64, 1, 5, 5), np.int8)
    packed = five.pack(w)
    assert packed.shape == (1, 7, 4, 4, 4, 4) and packed.dtype == np.int8


@pytest.mark.parametrize("pixels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((4, 2), 3), ((2, 5), 2)]
)
@pytest.mark.parametrize(
    "layout",
    [DotLayout(8, 2, "int16", "int16"), DotLayout(16, 4, "uint8", "int8")],
    ids=["pairs", "fours"],
)
def test_each_pixel_meets_each_tap_once(
    layout: DotLayout, kernel: tuple[int, int], stride: int, pixels: int
) -> None:
    packing = DirectDepthwisePacking(layout, kernel, stride, pixels)
    for pixel in range(pixels):
        met = []
        for step in packing.steps:
            for at, number in step.uses:
                if at != pixel:
                    continue
                for place, tap in zip(step.positions, packing.taps[number], strict=True):
                    if tap:
                        assert place == (tap[0], tap[1] + pixel * stride)
                        met.append(tap)
        assert sorted(met) == [(r, c) for r in range(kernel[0]) for c in range(kernel[1])]


def test_where_the_kernel_pays() -> None:
    """At a stride, and else for channels that fill vectors: where the image is copied, with 3x3 filters, with 5x5 ones
    where rows are long, and over three axes where most tiles lie inside of the image."""
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
        ({**large, **five}, True),
        ({**five, "width": 40}, True),
        ({**five, **wide, "height": 3, "width": 80}, True),
        (ragged, False),
        ({"in_channels": 48, "out_channels": 48, "groups": 48}, True),
        ({**two, **ragged}, True),
        ({**two, **five}, True),
        ({**two, **five, **wide}, True),
        ({**two, **five, **wide, "height": 100, "width": 100}, False),
        ({"dilations": (2, 2)}, False),
        ({**two, "dilations": (2, 2)}, False),
        ({"out_channels": 128}, False),
        ({**two, "out_channels": 128}, False),
        ({**two, "kernel": (7, 7)}, False),
        ({"planes": Axis(8, 3, 1, 1, 1)}, True),
        ({**large, "planes": Axis(4, 3, 1, 1, 1)}, False),
        ({**large, "planes": Axis(8, 3, 1, 1, 1)}, True),
        ({**large, "planes": Axis(32, 3, 1, 1, 1)}, True),
        ({**large, **five, "planes": Axis(32, 5, 1, 2, 2)}, False),
    ]
    for change, pays in cases:
        assert tiling.direct_depthwise_pays(replace(small, **change), LEVELS["avx2"]) == pays, (
            change
        )
    for level, target in LEVELS.items():
        assert tiling.direct_depthwise_pays(replace(small, **two), target), level


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pixels", "copied"),
    [
        ((14, 14), 3, 1, 2, 0),
        ((28, 28), 3, 1, 4, 0),
        ((56, 56), 3, 2, 1, 0),
        ((7, 7), 3, 1, 7, 15),
        ((12, 80), 5, 1, 3, 0),
        ((14, 14), 5, 1, 3, 5),
        ((28, 28), 5, 1, 3, 5),
        ((14, 14), 5, 2, 1, 5),
        ((56, 56), 5, 2, 1, 1),
        ((9, 1), 3, 1, 1, 15),
    ],
)
def test_the_default_tile_covers_rows_and_few_windows_are_copied(
    size: tuple[int, int], kernel: int, stride: int, pixels: int, copied: int
) -> None:
    before = kernel // 2
    padding = (before, before, before, before)
    square = (kernel, kernel)
    shape = ConvShape(1, *size, 480, 480, square, (stride, stride), padding, groups=480)
    config = tiling.default_direct_depthwise_config(shape, LEVELS["avx2"])
    assert (config.pixels, config.copied) == (pixels, copied)


@pytest.mark.parametrize(("threads", "copied"), [(1, 3), (2, 0), (3, 1)])
def test_images_are_copied_in_parts_that_threads_share(threads: int, copied: int) -> None:
    shape = ConvShape(1, 14, 14, 96, 96, (5, 5), (1, 1), (2, 2, 2, 2), groups=96)
    config = tiling.default_direct_depthwise_config(shape, LEVELS["avx2"], threads)
    assert config.copied == copied
