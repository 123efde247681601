"""Register tiles and blocks of convolutions."""

from dataclasses import dataclass

from lowgemm.packing import FLAT, ConvPacking, ConvShape, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._balance import balanced_divisor, parallel_loss
from lowgemm.tiling._registers import paired_cost, tile_registers

# Below this an image is so small against the weights that panels of weights are the blocks to share among threads.
FEW_PIXELS = 400
# A kernel of fewer multiply-accumulates takes some 2 us: a second thread gains less than it costs to share the data.
SERIAL_MACS = 200_000
# Bytes of weights that stay in the second cache beside all else, and of pixels.
_NEAR_WEIGHTS = 128 * 1024
_NEAR_PIXELS = 128 * 1024

# Bytes of pixels, or outputs, from which on they are not in the second cache.
_FAR = 2_000_000
# Bytes of one pixel from which on processors do not see that those of a tile, which are read in turns, follow each
# other. Below, prefetches cost up to a sixth.
_FAR_APART = 256
# Bytes of a cache line, and what a tile takes more that writes whole ones of far outputs: all its stores wait for them.
_LINE = 64
_FAR_LINES = 0.1

# The share of loads and the loop that is seen beside 512-bit VNNI, of which one or two products begin in a cycle: they
# alone count, and what a tile wastes of them.
_BESIDE_VNNI = 0.2

# What the copy that a tile needs takes more, for one vector of outputs: a fifth for three (56x56 144 -> 24, avx2).
_STAGING = 0.6

# AVX2's choices, from spaces that were measured in full on a Zen 3 (benchmarks/records/tuning-spaces.json). Fewer
# pixels than this do not pay for storing weights again in 16 bits:
_AVX2_WIDENED = 128
# Pairs of products in one output from which on its first and last instructions do not matter.
_AVX2_LONG = 64
# What an accumulator more costs after a shorter one, where products take a register beside it.
_AVX2_SHORT = 0.02


@dataclass(frozen=True)
class ConvConfig:
    """The knobs of one kernel.

    `rows` x `columns` pixels by `vectors` x `lanes` outputs are held in registers; `unroll` dot-product groups of the
    reduction are unrolled. `order` is "rows" (a parallel block is `block` tile rows, or, where there is one, `block`
    tiles of it, with all outputs: large images) or "panels" (a parallel block is one step of outputs: large weights).
    `widen` stores weights again in 16 bits before use, where the target's instruction wants that. `prefetch` fetches
    the next panel of weights under "panels", where they are read as they are stored.
    """

    rows: int
    columns: int
    vectors: int
    lanes: int
    unroll: int
    order: str
    block: int
    widen: bool = True
    prefetch: bool = True

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.vectors, self.unroll, self.block) < 1:
            raise ValueError(f"{self}: every knob is at least 1")
        if self.order not in ("rows", "panels"):
            raise ValueError(f'order is "rows" or "panels", not "{self.order}"')

    def check(self, target: CpuTarget) -> None:
        """Refuse a register tile that spills: accumulators, the weight vectors and a broadcast must fit."""
        used = tile_registers(self.rows * self.columns * self.vectors, self.vectors, target)
        if used > target.registers:
            raise ValueError(f"{self} needs {used} registers of {target.registers}")


def needs_stage(shape: ConvShape, packing: ConvPacking, in_dtype: str, config: ConvConfig) -> bool:
    """Whether the kernel must read a padded copy of its input in the operand dtype instead of the input itself."""
    return (
        in_dtype != packing.layout.lhs
        or any(shape.padding)
        or packing.padded_run != packing.run
        or shape.planes.before != 0
        or shape.planes.after != 0
        or shape.joined
        or shape.grid[0] % config.rows != 0
        or shape.grid[1] % config.columns != 0
    )


def fetches_rows(shape: ConvShape, packing: ConvPacking, config: ConvConfig, staged: bool) -> bool:
    """Whether the kernel fetches the pixels of the block after the one that it computes."""
    pointwise = packing.tap_rows * packing.tap_cols == 1 and shape.planes == FLAT
    apart = shape.in_channels >= _FAR_APART
    return shape.inputs >= _FAR and pointwise and apart and config.order == "rows" and not staged


def default_conv_config(shape: ConvShape, target: CpuTarget, threads: int = 1) -> ConvConfig:
    """The heuristic choice for `shape` on `threads` threads, used where nothing was tuned."""
    lanes = conv_lanes(shape, target)
    packing = ConvPacking.of(shape, dot_layout(target, lanes))
    panels = packing.panels // packing.groups
    rows, columns, vectors = _register_tile(shape, target, panels, packing)
    pixels = shape.out_height * shape.out_width
    weights = shape.taps * shape.in_channels * shape.out_channels // shape.groups
    # A block of rows re-reads all weights; a panel re-reads the whole input. The larger operand is read once. Threads
    # that take panels write to the same cache lines, though: where weights are near anyway, they take pixels.
    few = pixels < FEW_PIXELS and (threads == 1 or pixels == 1 or weights > _NEAR_WEIGHTS)
    if shape.groups == 1 and (few or weights > 4 * pixels * shape.in_channels):
        order, block = "panels", 1
    else:
        order = "rows"
        # Input and output of a block stay in L2 beside the weights.
        tiles = block_tiles(shape, rows, columns)
        across = shape.grid[0] <= rows
        along, others = (columns, rows) if across else (rows, shape.width)
        kernel = shape.kernel[across]
        stride = 1 if shape.joined else shape.strides[across]
        staged = 2 * shape.in_channels * stride * shape.planes.kernel
        tile_bytes = (staged + shape.out_channels) * others * along
        # Neighbours stage what lies between them twice.
        edge = 0.1 * (kernel - 1) / stride + 0.02
        limit = min(160 * 1024 // tile_bytes, tiles // 4)
        block = balanced_divisor(tiles, limit, threads, edge, shape.out_images)
    if order == "panels":
        # Fewer vectors at once use inputs less often, but may leave every thread as much to do.
        divisors = [d for d in range(1, vectors + 1) if vectors % d == 0]
        vectors //= min(
            divisors,
            key=lambda d: parallel_loss(panels // vectors * d, threads) * (0.85 + 0.15 * d),
        )
    # A weight that meets fewer pixels than this is not worth storing again; nor, on AVX2, are those of groups, of which
    # a tile takes few at a time (28x28, 32 groups of 8: 3%).
    widen = target.dot_depth == 2 and pixels > (_AVX2_WIDENED if _is_avx2(target) else 4 * columns)
    widen = widen and not (_is_avx2(target) and shape.groups > 1)
    prefetch = order == "panels" and not widen and pixels > 1
    unroll = _unroll(packing, target, rows * columns * vectors)
    return ConvConfig(rows, columns, vectors, lanes, unroll, order, block, widen, prefetch)


def conv_lanes(shape: ConvShape, target: CpuTarget) -> int:
    """Outputs of a vector: as many as `target` has, or 8 where there are no more."""
    return target.lanes if shape.out_channels > 8 else 8


def block_tiles(shape: ConvShape, rows: int, columns: int) -> int:
    """What blocks of rows consist of: rows of tiles, or, where there is only one, its tiles."""
    height, width = shape.grid
    tile_rows = -(-height // rows)
    return tile_rows if tile_rows > 1 else -(-width // columns)


def _is_avx2(target: CpuTarget) -> bool:
    """Whether products take a register beside the accumulators, and there are sixteen."""
    return target.registers == 16 and (target.dot_depth == 2 or target.summed > 0)


def _steps(packing: ConvPacking) -> int:
    """Pairs of products that one output sums."""
    return packing.tap_rows * packing.tap_cols * packing.padded_run // 2


def _unroll(packing: ConvPacking, target: CpuTarget, dots: int) -> int:
    """Two steps at once where registers are left for it: 3 to 4% on AVX2."""
    inner = packing.padded_run // packing.layout.depth
    useful = _is_avx2(target) and 4 <= dots <= 8
    # Sums of 16 bits take three instructions or more a step, not two, and gain nothing.
    return 2 if useful and inner % 2 == 0 and not target.summed else 1


def _avx2_pressure(dots: int, vectors: int, steps: int, target: CpuTarget) -> float:
    """What a tile of `dots` accumulators costs beside its instructions.

    With few registers left, loads wait for one; and after a short sum of 16-bit products, which need a register more
    each, the output stage of a large tile finds none.
    """
    waiting = 1.03 if 16 - tile_registers(dots, vectors, target) < 4 else 1.0
    return waiting * (1 + _AVX2_SHORT * dots if steps < _AVX2_LONG and not target.summed else 1.0)


def _register_tile(
    shape: ConvShape, target: CpuTarget, panels: int, packing: ConvPacking
) -> tuple[int, int, int]:
    """(rows, columns, vectors) that cost least on this shape, with what they waste, and a copy for their sake."""
    best: tuple[float, tuple[int, int, int]] | None = None
    height, width = shape.grid
    pixels = height * width
    # Of one pixel, each weight vector is used once, straight from memory: only chains of accumulators count.
    one = shape.out_images * pixels == 1
    # Three vectors by three pixels spill in 16 registers: half the speed of any neighbour (56x56 144 -> 24, avx2).
    spilling = 3 if _is_avx2(target) and not target.paired else 0
    pixel_tile = ConvConfig(1, 1, 1, 8, 1, "rows", 1)
    staged = needs_stage(shape, packing, packing.layout.lhs, pixel_tile)
    for vectors in range(1, 13 if one else 5):
        if panels % vectors or vectors == spilling:
            continue
        for rows in (1, 2):
            for columns in range(1, 29):
                if rows > 1 and (rows > height or columns < width):
                    continue
                config = ConvConfig(rows, columns, vectors, 8, 1, "rows", 1)
                try:
                    config.check(target)
                except ValueError:
                    continue
                covered = -(-height // rows) * rows * (-(-width // columns) * columns)
                cost = covered / pixels * _tile_cost(config, shape, target, packing, one)
                if shape.outputs >= _FAR and vectors * packing.layout.lanes >= _LINE:
                    cost *= 1 + _FAR_LINES
                if not staged and needs_stage(shape, packing, packing.layout.lhs, config):
                    cost *= 1 + _STAGING / panels
                if best is None or cost < best[0] - 1e-9:
                    best = (cost, (rows, columns, vectors))
    assert best is not None
    return best[1]


def _tile_cost(
    config: ConvConfig, shape: ConvShape, target: CpuTarget, packing: ConvPacking, one: bool
) -> float:
    """What a dot product takes in a tile of `config`, to compare with others; `one` says that there is one pixel."""
    pixels, vectors = config.rows * config.columns, config.vectors
    if target.paired and not one:
        words = packing.padded_run // packing.layout.depth
        return paired_cost(pixels, vectors, words, target.registers)
    few = shape.out_height * shape.out_width <= _AVX2_WIDENED
    widening = target.dot_depth == 2 and _is_avx2(target) and few and not one
    # Instructions per product: the dot products, the loads that feed them, what widens weights, the loop.
    per_dot = 3 if target.summed else 2 if target.dot_depth == 2 else 1
    dots = pixels * vectors
    loads = 0.5 * (pixels + vectors * (2 if widening else 1))
    loop = 2.0 / _unroll(packing, target, dots)
    beside = _BESIDE_VNNI if target.dot_depth == 4 and target.registers == 32 and not one else 1.0
    cost = (per_dot * dots + beside * (loads + loop)) / dots
    if one or not _is_avx2(target):
        return cost
    return cost * _avx2_pressure(dots, vectors, _steps(packing), target)


def check_conv_config(shape: ConvShape, target: CpuTarget, config: ConvConfig) -> None:
    """Refuse what spills, and what would leave predicates in the inner loop, which no instruction takes.

    Raises:
        ValueError: the configuration does not fit the target's registers or vectors, or does not divide the shape.
    """
    config.check(target)
    if target.paired and config.unroll > 1:
        raise ValueError(f"{config}: steps of words in pairs are not unrolled")
    if config.lanes not in (8, target.lanes):
        raise ValueError(f"{config}: {target.level} has vectors of 8 or {target.lanes} lanes")
    packing = ConvPacking.of(shape, dot_layout(target, config.lanes))
    if packing.panels % config.vectors:
        raise ValueError(f"{config}: {config.vectors} vectors do not divide {packing.panels}")
    tiles = block_tiles(shape, config.rows, config.columns)
    if config.order == "rows" and tiles % config.block:
        raise ValueError(f"{config}: blocks of {config.block} do not divide {tiles} rows")


def row_image(rows: int, depth: int, threads: int) -> tuple[int, int]:
    """The rows of a matrix of `depth` columns as an image, whose rows stay in the caches and go to different threads.

    An image whose rows the threads can share evenly is best, of a width that the widest register tile divides, and
    whose pixels find room in the second cache, since every panel of weights meets them all.
    """
    widest = max(28, min(256, _NEAR_PIXELS // depth))
    widths = [w for w in range(28, widest + 1) if rows % w == 0]
    if rows < FEW_PIXELS or not widths:
        return 1, rows
    width = min(
        widths, key=lambda w: (round(parallel_loss(rows // w, threads), 1), w % 28 != 0, -w)
    )
    return rows // width, width
