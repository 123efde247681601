"""Tiles of depthwise kernels that read the image where it lies or a copy, and where they take less time than others."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lowgemm.packing import FLAT, ConvShape, DirectDepthwisePacking, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._balance import balanced_divisor, parallel_loss
from lowgemm.tiling._unstaged import unstaged_prefetches

# Without a copy of the image, the share of tiles that do not stick out of one over three axes: 0.58 of 16x28x28, 0.46
# of 8x14x14 (Zen 3); and pixels of a row that are worth the 5x5 kernel: 12x80 takes 0.75 of the time, 40x40 0.92, 28x28
# 1.0.
_LEAST_INSIDE = 0.53
_LEAST_WIDTH = 40
# For filters of up to 3x3 and for larger ones, beside which sixteen registers hold less: the time of a tile of so many
# pixels at stride 1, in pixels; of each column that is copied because a window sticks out of the image; and of each
# pixel that is copied with an image.
_SMALL = {1: 1.3, 2: 2.1, 3: 3.0, 4: 4.05, 7: 7.8}, 0.25, 0.15
_LARGE = {1: 1.4, 2: 2.2, 3: 3.0, 4: 4.5}, 0.15, 0.1
# A copy stays in the second cache beside what it is made of, and outputs.
_NEAR_COPY = 160 * 1024
# What a part of the channels costs beside its share, in blocks of them; and how unevenly threads may share parts, of
# which there are fewer than rows.
_PART = 0.2
_MOST_LOSS = 1.2
# Channels that are computed for each that there is: of 160x160x48, two blocks of 32, it takes 0.9 of the time.
_MOST_UNUSED = 1.65
# Half of the first cache.
_NEAR_FILTERS = 16 * 1024
MOST_PIXELS = 8
# Sums of a vector of 256 bits.
_FEWEST_LANES = 8


@dataclass(frozen=True)
class DirectDepthwiseConfig:
    """The knobs of one kernel: how many `pixels` side by side are a tile, which share what is interleaved, and of how
    many blocks of channels at a time an image is `copied`, with its border (0: only windows that stick out are)."""

    pixels: int
    copied: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.pixels <= MOST_PIXELS:
            raise ValueError(f"{self}: a tile has 1 to {MOST_PIXELS} pixels")
        if self.copied < 0:
            raise ValueError(f"{self}: no fewer than 0 blocks are copied")


def default_direct_depthwise_config(
    shape: ConvShape, target: CpuTarget, threads: int = 1
) -> DirectDepthwiseConfig:
    """The heuristic choice for `shape`, used where nothing was tuned.

    Neighbours that are apart share little, and two stick out of an image more often than one (at stride 2, 5x5: 0.9 to
    1.2 of the time). At stride 1 the tiles count, and those of which a window sticks out: two pixels of 14x14 take 0.86
    of the time of four, which cover 16 of a row (Zen 3). Where many do, the image is copied, if that is small.
    """
    large = shape.taps > 9
    times, column, pixel = _LARGE if large else _SMALL
    # Sums of several planes stay in registers.
    widest = min(shape.out_width, 4 if shape.planes != FLAT else MOST_PIXELS)
    pixels = [1] if shape.strides[1] > 1 else [p for p in times if p <= widest]

    def time(config: DirectDepthwiseConfig) -> float:
        tiles = -(-shape.out_width // config.pixels)
        if config.copied:
            rows = shape.planes.out * shape.out_height * shape.planes.kernel
            copied = _padded_pixels(shape) / rows * pixel
        else:
            outside = tiles * (1 - _share_inside(shape, config.pixels))
            copied = outside * (config.pixels + shape.kernel[1] - 1) * column
        return tiles * times[config.pixels] + copied

    def options() -> Iterator[DirectDepthwiseConfig]:
        for each in pixels:
            config = DirectDepthwiseConfig(each)
            packing = direct_depthwise_packing(shape, target, config)
            copied = _copied_blocks(shape, packing, threads)
            if copied:
                yield replace(config, copied=copied)
            if not copied or _windows_pay(shape, packing):
                yield config

    return min(options(), key=time)


def _copied_blocks(shape: ConvShape, packing: DirectDepthwisePacking, threads: int) -> int:
    """Of how many blocks of channels an image is copied at a time; 0 if not even one stays near.

    They divide the blocks: with loops of two trip counts it takes 1.1 to 1.2 of the time. Filters larger than 3x3 stay
    in the first cache, too.
    """
    order = packing.order
    most = _NEAR_COPY // (_padded_pixels(shape) * order.channels)
    if shape.taps > 9:
        filters = shape.planes.kernel * packing.filter_bytes(order.channels)
        most = min(most, _NEAR_FILTERS // filters)
    blocks = order.blocks(shape.out_channels)
    if most == 0:
        return 0
    if unstaged_prefetches(shape) and blocks <= most:
        return blocks  # only whole images are prefetched
    copied = balanced_divisor(blocks, most, threads, _PART, shape.batch)
    uneven = parallel_loss(blocks // copied * shape.batch, threads) > _MOST_LOSS
    return 0 if uneven else copied


def _padded_pixels(shape: ConvShape) -> int:
    """The pixels of an image with its border."""
    return shape.planes.covered * shape.rows.covered * shape.columns.covered


def check_direct_depthwise_config(
    shape: ConvShape, target: CpuTarget, config: DirectDepthwiseConfig
) -> None:
    """Refuse tiles that are wider than a row, parts that do not divide the channels, and shapes that the kernel does
    not compute.

    Raises:
        ValueError: the configuration does not fit the shape, or the shape has no such kernel.
    """
    if not direct_depthwise_takes(shape, target):
        raise ValueError(
            f"{shape}: this kernel is for filters without dilation of as many outputs as inputs, which fill a vector"
        )
    if config.pixels > shape.out_width:
        raise ValueError(f"{config}: a row has {shape.out_width} pixels")
    blocks = direct_depthwise_packing(shape, target, config).order.blocks(shape.out_channels)
    if config.copied and blocks % config.copied:
        raise ValueError(f"{config}: {config.copied} blocks of channels do not divide {blocks}")


def direct_depthwise_takes(shape: ConvShape, target: CpuTarget) -> bool:
    """Whether the kernel computes `shape`: one output for each input, and as many channels as 256 bits have bytes."""
    return (
        shape.groups == shape.in_channels == shape.out_channels >= 4 * _FEWEST_LANES
        and shape.dilations == (1, 1)
    )


def direct_depthwise_pays(shape: ConvShape, target: CpuTarget) -> bool:
    """Whether it is expected to take less time than the kernel that interleaves rows beforehand.

    Vectors should be full at stride 1, which the other kernel's are with pixels.
    """
    if not direct_depthwise_takes(shape, target) or shape.kernel not in ((3, 3), (5, 5)):
        return False
    config = default_direct_depthwise_config(shape, target)
    packing = direct_depthwise_packing(shape, target, config)
    channels = packing.order.blocks(shape.out_channels) * packing.order.channels
    if shape.strides[0] == 1 and channels > _MOST_UNUSED * shape.out_channels:
        return False
    return config.copied > 0 or _windows_pay(shape, packing)


def _windows_pay(shape: ConvShape, packing: DirectDepthwisePacking) -> bool:
    """Whether it does without a copy of the image.

    At a stride it does where the filters of all channels, which each tile reads, stay in the first cache: output rows
    share few rows of the input. Else rows should be long for large filters, and, over three axes, few tiles stick out
    of the image.
    """
    small = shape.kernel == (3, 3)
    if shape.strides[0] > 1:
        return small or packing.filter_bytes(shape.out_channels) <= _NEAR_FILTERS
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


def _lanes(shape: ConvShape, target: CpuTarget) -> int:
    """Of a vector of sums: those of 256 bits where channels do not fill 512."""
    return target.lanes if shape.out_channels >= 4 * target.lanes else _FEWEST_LANES


def direct_depthwise_packing(
    shape: ConvShape, target: CpuTarget, config: DirectDepthwiseConfig
) -> DirectDepthwisePacking:
    """The order in which it takes filters."""
    layout = dot_layout(target, _lanes(shape, target))
    return DirectDepthwisePacking(layout, shape.kernel, shape.strides[1], config.pixels)
