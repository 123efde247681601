"""Tiles of grouped convolutions whose lanes are groups, and where they are taken."""

from collections.abc import Callable
from dataclasses import dataclass

from lowgemm.packing import ConvShape, GroupedPacking, dot_layout
from lowgemm.targets import CpuTarget

# Channels that are computed for each that there is.
_MOST_UNUSED = 1.7
# Bytes of images that come from beyond the second cache.
_FAR = 384 * 1024


@dataclass(frozen=True)
class GroupedConfig:
    """The knobs of one kernel: how many `pixels` side by side are a tile, and whether it is computed `whole`, for all
    channels, before the next one, or one block of channels at a time for a row."""

    pixels: int
    whole: bool

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise ValueError(f"{self}: a tile has at least one pixel")


def default_grouped_config(shape: ConvShape, target: CpuTarget, threads: int = 1) -> GroupedConfig:
    """The heuristic choice for `shape`, used where nothing was tuned.

    A tile has as many pixels as registers hold, or fewer that cut a row into as many. Pieces of a pixel from beyond the
    second cache are slow to come (ten images of 56x56x256 at stride 2: 2.3 times the time of whole pixels); from near,
    filters of one block stay nearer (28x28x256: 0.91 of it).
    """
    most = min(_most_pixels(_packing(shape, target), target), shape.out_width)
    tiles = -(-shape.out_width // most)
    return GroupedConfig(-(-shape.out_width // tiles), shape.inputs >= _FAR)


def check_grouped_config(shape: ConvShape, target: CpuTarget, config: GroupedConfig) -> None:
    """Refuse tiles that spill or are wider than a row, and shapes that the kernel does not compute.

    Raises:
        ValueError: the configuration does not fit the shape or the registers, or the shape has no such kernel.
    """
    packing = _packing(shape, target)
    most = _most_pixels(packing, target)
    if config.pixels > most:
        raise ValueError(
            f"{config}: a tile has at most {most} pixels in {target.registers} registers"
        )
    if config.pixels > shape.out_width:
        raise ValueError(f"{config}: a row has {shape.out_width} pixels")


def _most_pixels(packing: GroupedPacking, target: CpuTarget) -> int:
    # Beside accumulators: activations, and what they are multiplied to or with.
    return (target.registers - packing.quads - 2) // packing.outputs


def _packing(shape: ConvShape, target: CpuTarget) -> GroupedPacking:
    found = grouped_packing(shape, target)
    if found is None:
        raise ValueError(
            f"{shape}: this kernel is for groups of 2, 4 or 8 channels, as many outputs, that fill a vector, and for "
            "weights of which sums fit 16 bits without VNNI"
        )
    return found


def grouped_packing(shape: ConvShape, target: CpuTarget) -> GroupedPacking | None:
    """The order in which kernels take filters of `shape`, None if they do not; `target` says what weights allow."""
    if target.dot_depth != 4:
        return None
    found = GroupedPacking.of(shape, dot_layout(target, target.lanes))
    if found is None:
        return None
    computed = found.blocks(shape.out_channels) * found.channels
    return found if computed <= _MOST_UNUSED * shape.out_channels else None


def grouped_fits(
    shape: ConvShape, target: CpuTarget, fits: Callable[[GroupedPacking], bool]
) -> bool:
    """Whether `target.summing(1)` takes `shape` with a weight, of which `fits` says whether 16 bits hold its sums."""
    view = target.summing(1)
    packing = grouped_packing(shape, view)
    return packing is not None and (view == target or fits(packing))
