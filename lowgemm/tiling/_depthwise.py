"""Register tiles and blocks of depthwise convolutions."""

from dataclasses import dataclass

from lowgemm.packing import ConvShape, DepthwisePacking, DotLayout, Interleaving, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._balance import balanced_divisor

# The rows of a block on AVX2: 56x56x144 takes a quarter less time in blocks of 14 than as a whole (Zen 3).
_AVX2_ROWS = 16


@dataclass(frozen=True)
class DepthwiseConfig:
    """The knobs of one kernel.

    `columns` pixels of one block (four vectors) are held in registers; a parallel block is `block_rows` output rows of
    one block of channels, or of all (see `blocks_together`); vectors hold pixels of `segments` parts of a row (see
    `packing.DepthwisePacking`).
    """

    columns: int
    block_rows: int
    segments: int = 1

    def __post_init__(self) -> None:
        if min(self.columns, self.block_rows, self.segments) < 1:
            raise ValueError(f"{self}: every knob is at least 1")

    def check(self, target: CpuTarget) -> None:
        """Refuse a register tile that spills: accumulators, a weight vector and a product must fit."""
        used = 4 * self.columns + (1 if target.dot_depth == 4 else 2)
        if used > target.registers:
            raise ValueError(f"{self} needs {used} registers of {target.registers}")


def default_depthwise_config(
    shape: ConvShape, target: CpuTarget, threads: int = 1
) -> DepthwiseConfig:
    """The heuristic choice for `shape` on `threads` threads, used where nothing was tuned."""
    # Beside the accumulators LLVM keeps inputs that several taps use, which costs more spills with few registers.
    limit = 7 if target.registers == 32 else 3 if _is_avx2(target) else 2
    # A tile's weight loads, in pixels, and what a second segment costs.
    loads, apart = (0.3, 0.05) if _is_avx2(target) else (0.5, 0.02)
    options = [
        (s, c)
        for s in (1, 2, 4)
        for c in range(1, limit + 1)
        if 4 * s <= target.lanes and shape.out_width % s == 0
    ]

    def work(option: tuple[int, int]) -> float:
        segments, columns = option
        packing = depthwise_packing(shape, target, segments)
        tiles = -(-shape.out_width // (segments * columns)) * packing.blocks(shape.out_channels)
        # A tile's time: its pixels; the border that each segment stages anew; weight loads, once a tile.
        border = (shape.kernel[1] - 1) * columns / max(1, shape.out_width // segments)
        # Wide tiles of small filters spill more than they save in weight loads.
        spill = 1.06 if columns > 4 and shape.kernel[0] * shape.kernel[1] <= 9 else 1.0
        return tiles * (columns + 0.5 * border + loads) * (1 + apart * segments) * spill

    segments, columns = min(options, key=work)
    packing = depthwise_packing(shape, target, segments)
    # What may lie in L2 beside all else: an eighth of it, or a quarter.
    near = (64 if _is_avx2(target) else 256) * 1024
    width = -(-shape.out_width // segments) * shape.strides[1] + shape.kernel[1]
    row_bytes = width * target.vector_bits // 8 * target.dot_depth
    rows = packing.rows(shape.out_height)
    whole = DepthwiseConfig(columns, rows, segments)
    if interleaving(shape, packing, whole) == "each":
        # What is interleaved for an image, once for all rows, stays in L2.
        image_bytes = (shape.height + shape.kernel[0]) * row_bytes
        if image_bytes <= near and packing.blocks(shape.out_channels) >= 4:
            return whole
    # The copy of a block's rows and what is interleaved for one row stay in L2; each block copies its border anew.
    edge = 0.1 * (shape.kernel[0] - 1) / shape.strides[0] + 0.02
    limit = near // (row_bytes * shape.strides[0])
    limit = min(limit, _AVX2_ROWS) if _is_avx2(target) else limit
    channel_blocks = packing.blocks(shape.out_channels) // blocks_together(shape, packing)
    others = shape.out_images * channel_blocks
    pairs = rows // packing.phases
    block = balanced_divisor(pairs, limit // packing.phases, threads, edge * packing.phases, others)
    return DepthwiseConfig(columns, block * packing.phases, segments)


# An image from which blocks of channels one by one would be copied in pieces of 32 bytes that are no longer, or not
# yet, near: 200x200x144 at stride 2 takes 19% less time, 150x150x248 6%, 38x50x544 2%, 28x28x192 (147 KB) 2% more.
_FAR = 256 * 1024


def blocks_together(shape: ConvShape, packing: DepthwisePacking) -> int:
    """How many blocks of channels are copied at once: all of a large image, whose pixels are then read whole."""
    pixels = shape.height * shape.width
    return packing.blocks(shape.out_channels) if pixels * shape.in_channels >= _FAR else 1


def _is_avx2(target: CpuTarget) -> bool:
    """Whether products take a register beside the accumulators, and there are sixteen."""
    return target.registers == 16 and target.dot_depth == 2


def check_depthwise_config(shape: ConvShape, target: CpuTarget, config: DepthwiseConfig) -> None:
    """Refuse what spills, and what would leave guards around vectors.

    Raises:
        ValueError: the configuration does not fit the target's registers or vectors, or does not divide the shape.
    """
    config.check(target)
    if 4 * config.segments > target.lanes or config.segments not in (1, 2, 4):
        raise ValueError(f"{config}: a vector of {target.level} has {target.lanes // 4} segments")
    packing = depthwise_packing(shape, target, config.segments)
    rows, tile = packing.rows(shape.out_height), packing.phases
    if config.block_rows % tile or rows % config.block_rows or shape.out_width % config.segments:
        raise ValueError(f"{config} does not divide {rows} rows of {shape.out_width}")


def interleaving(
    shape: ConvShape, packing: DepthwisePacking, config: DepthwiseConfig
) -> Interleaving:
    """How rows are interleaved."""
    if _aligns(shape, packing.layout):
        return "aligned"
    # Only for whole images: TVM's compute_at does not see that blocks of rows overlap, and would leave rows out.
    many = shape.kernel[0] > packing.layout.depth and shape.planes.kernel == 1
    if many and shape.strides[0] == 1 and config.block_rows == shape.out_height:
        return "each"
    return "own"


def depthwise_packing(shape: ConvShape, target: CpuTarget, segments: int) -> DepthwisePacking:
    """The order in which `target`'s kernels hold channels, and filters."""
    layout = dot_layout(target, target.lanes)
    return DepthwisePacking(layout, segments, _phases(shape, layout))


def _aligns(shape: ConvShape, layout: DotLayout) -> bool:
    """Whether rows are interleaved once, in pairs, whichever output rows use them: if filters then take no more pairs
    of rows than if each began with one."""
    odd = shape.strides[0] % 2
    return layout.depth == 2 and shape.dilations[0] == 1 and not (odd and shape.kernel[0] % 2 == 0)


def _phases(shape: ConvShape, layout: DotLayout) -> int:
    return 2 if _aligns(shape, layout) and shape.strides[0] % 2 else 1
