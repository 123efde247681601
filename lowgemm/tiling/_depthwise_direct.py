"""Tiles of depthwise kernels that read the image where it lies, and where they take less time than others."""

from dataclasses import dataclass

from lowgemm.packing import ConvShape, DirectDepthwisePacking, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._unstaged import unstaged_prefetches

# The share of tiles that do not stick out of an image: of 20x20 it is 0.54, of 14x14 0.43, of 7x7 none (Zen 3).
_LEAST_INSIDE = 0.53
# Channels that are computed for each that there is.
_MOST_UNUSED = 1.15
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

    Neighbours that are apart share too little to be worth the registers (75x75x248 at stride 2: one pixel takes 7% less
    time than two); at stride 1 four take 7 to 13% less than two (Zen 3).
    """
    return DirectDepthwiseConfig(min(4, shape.out_width) if shape.strides[1] == 1 else 1)


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
    share few rows of the input. Else vectors should be full, which the others' are with pixels, and either few tiles
    should stick out of the image, or its tiles be prefetched (71 of 7x7x1088 take 0.7 of the time).
    """
    if not direct_depthwise_takes(shape, target) or shape.kernel not in ((3, 3), (5, 5)):
        return False
    config = default_direct_depthwise_config(shape, target)
    packing = direct_depthwise_packing(shape, target, config)
    near = packing.filter_bytes(shape.out_channels) <= _NEAR_FILTERS or shape.kernel == (3, 3)
    if shape.strides[0] > 1:
        return near
    channels = packing.order.blocks(shape.out_channels) * packing.order.channels
    full = channels <= _MOST_UNUSED * shape.out_channels
    if unstaged_prefetches(shape):
        return full and near
    return full and shape.kernel == (3, 3) and _share_inside(shape, config) >= _LEAST_INSIDE


def _share_inside(shape: ConvShape, config: DirectDepthwiseConfig) -> float:
    """Of all tiles, those whose window does not stick out of the image."""
    share = 1.0
    for axis, pixels in ((shape.planes, 1), (shape.rows, 1), (shape.columns, config.pixels)):
        tiles = -(-axis.out // pixels)
        starts = [min(i * pixels, axis.out - pixels) * axis.stride for i in range(tiles)]
        reach = (pixels - 1) * axis.stride + axis.span
        fitting = [at - axis.before >= 0 and at - axis.before + reach <= axis.size for at in starts]
        share *= sum(fitting) / tiles
    return share


def direct_depthwise_packing(
    shape: ConvShape, target: CpuTarget, config: DirectDepthwiseConfig
) -> DirectDepthwisePacking:
    """The order in which it takes filters."""
    layout = dot_layout(target, target.lanes)
    return DirectDepthwisePacking(layout, shape.kernel, shape.strides[1], config.pixels)
