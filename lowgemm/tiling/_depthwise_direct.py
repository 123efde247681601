"""Tiles of depthwise kernels that read the image where it lies, and where they take less time than others."""

from dataclasses import dataclass

from lowgemm.packing import FLAT, ConvShape, DirectDepthwisePacking, dot_layout
from lowgemm.targets import CpuTarget

# The share of tiles that do not stick out of an image over three axes: 0.58 of 16x28x28, 0.46 of 8x14x14 (Zen 3).
_LEAST_INSIDE = 0.53
# Rows of so many pixels are worth the 5x5 kernel: 12x80 and 3x96 take 0.75 of the time, 40x40 0.92, 28x28 1.0, 14x14
# 1.05.
_LEAST_WIDTH = 40
# The time of a tile of so many pixels at stride 1, in pixels, with filters of up to 3x3 and larger ones, beside which
# sixteen registers hold less; and of each column that is copied because its window sticks out of the image.
_SMALL_TILES = {1: 1.3, 2: 2.1, 3: 3.0, 4: 4.05}
_LARGE_TILES = {1: 1.4, 2: 2.2, 3: 3.0, 4: 4.5}
_COPIED = 0.25
# Channels that are computed for each that there is: of 160x160x48, two blocks of 32, it takes 0.9 of the time.
_MOST_UNUSED = 1.65
# Half of the first cache.
_NEAR_FILTERS = 16 * 1024
MOST_PIXELS = 8


@dataclass(frozen=True)
class DirectDepthwiseConfig:
    """The knob of one kernel: how many `pixels` side by side are a tile, which share what is interleaved."""

    pixels: int

    def __post_init__(self) -> None:
        if not 1 <= self.pixels <= MOST_PIXELS:
            raise ValueError(f"{self}: a tile has 1 to {MOST_PIXELS} pixels")


def default_direct_depthwise_config(
    shape: ConvShape, target: CpuTarget, threads: int = 1
) -> DirectDepthwiseConfig:
    """The heuristic choice for `shape`, used where nothing was tuned.

    Neighbours that are apart share little, and two stick out of an image more often than one (at stride 2, 5x5: 0.9 to
    1.2 of the time). At stride 1 the tiles count, and those of which a window sticks out: two pixels of 14x14 take 0.86
    of the time of four, which cover 16 of a row (Zen 3).
    """
    if shape.strides[1] > 1:
        return DirectDepthwiseConfig(1)
    large = shape.kernel[0] * shape.kernel[1] > 9
    times = _LARGE_TILES if large else _SMALL_TILES

    def time(pixels: int) -> float:
        tiles = -(-shape.out_width // pixels)
        copied = (1 - _share_inside(shape, pixels)) * (pixels + shape.kernel[1] - 1)
        return tiles * (times[pixels] + copied * _COPIED)

    return DirectDepthwiseConfig(min((p for p in times if p <= shape.out_width), key=time))


def check_direct_depthwise_config(
    shape: ConvShape, target: CpuTarget, config: DirectDepthwiseConfig
) -> None:
    """Refuse tiles that are wider than a row, and shapes that the kernel does not compute.

    Raises:
        ValueError: the configuration does not fit the shape, or the shape has no such kernel.
    """
    if not direct_depthwise_takes(shape, target):
        raise ValueError(
            f"{shape}: this kernel is for filters without dilation of as many outputs as inputs, which fill a vector, "
            "without VNNI"
        )
    if config.pixels > shape.out_width:
        raise ValueError(f"{config}: a row has {shape.out_width} pixels")


def direct_depthwise_takes(shape: ConvShape, target: CpuTarget) -> bool:
    """Whether the kernel computes `shape`: one output for each input and as many channels as a vector has bytes, on a
    level without VNNI."""
    return (
        target.dot_depth == 2
        and shape.groups == shape.in_channels == shape.out_channels >= target.vector_bits // 8
        and shape.dilations == (1, 1)
    )


def direct_depthwise_pays(shape: ConvShape, target: CpuTarget) -> bool:
    """Whether it is expected to take less time than the kernel that interleaves rows beforehand.

    At a stride it does, where the filters of all channels, which each tile reads, stay in the first cache: output rows
    share few rows of the input. Else vectors should be full, which the others' are with pixels, and, over three axes,
    few tiles stick out of the image.
    """
    if not direct_depthwise_takes(shape, target) or shape.kernel not in ((3, 3), (5, 5)):
        return False
    packing = direct_depthwise_packing(
        shape, target, default_direct_depthwise_config(shape, target)
    )
    small = shape.kernel == (3, 3)
    if shape.strides[0] > 1:
        return small or packing.filter_bytes(shape.out_channels) <= _NEAR_FILTERS
    channels = packing.order.blocks(shape.out_channels) * packing.order.channels
    if channels > _MOST_UNUSED * shape.out_channels:
        return False
    if shape.planes != FLAT:
        return small and _share_inside(shape, packing.pixels) >= _LEAST_INSIDE
    return small or shape.out_width >= _LEAST_WIDTH


def _share_inside(shape: ConvShape, pixels: int) -> float:
    """Of all tiles of so many pixels, those whose window does not stick out of the image."""
    share = 1.0
    for axis, size in ((shape.planes, 1), (shape.rows, 1), (shape.columns, pixels)):
        tiles = -(-axis.out // size)
        starts = [min(i * size, axis.out - size) * axis.stride for i in range(tiles)]
        reach = (size - 1) * axis.stride + axis.span
        fitting = [at - axis.before >= 0 and at - axis.before + reach <= axis.size for at in starts]
        share *= sum(fitting) / tiles
    return share


def direct_depthwise_packing(
    shape: ConvShape, target: CpuTarget, config: DirectDepthwiseConfig
) -> DirectDepthwisePacking:
    """The order in which it takes filters."""
    layout = dot_layout(target, target.lanes)
    return DirectDepthwisePacking(layout, shape.kernel, shape.strides[1], config.pixels)
