"""Register tiles and blocks of Winograd convolutions, and where they take less time than direct ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lowgemm.packing import FLAT, ConvShape, WinogradPacking, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._balance import parallel_loss
from lowgemm.tiling._conv import conv_lanes
from lowgemm.tiling._registers import tile_registers

# Of so many channels nothing that is added up in 32 bits exceeds them with tiles of 2x2. For each channel, an entry of
# M, a sum of A^T M and four times an accumulator are at most 4 * 9 * 255 * 128; before its last term, a sum is off by
# that term.
WINOGRAD_CHANNELS = (2**31 - 1) // (2 * 4 * 9 * 255 * 128)


@dataclass(frozen=True)
class _Costs:
    """What things cost, in vector instructions, by the pixels of a tile each way where that counts.

    `dot` is a product of registers and `operand` loading one; `direct` are four products a lane of a direct kernel, by
    how many groups of four 16 bits may sum, and `direct_sum` the output of a vector of channels there. `move` is the
    input of a tile, 16 channels, `sum` its output, a vector of channels, `filter` what it takes to transform a vector
    of filters, and `tile` a register tile, before and after its sum. A `line` of weights, or `line_far` one of `_FAR`
    and more, which other layers drive out of the last cache, is read `again` if it is not in the second cache.
    Transformed data beyond `data` bytes take longer, for each time that it is as much, by the share `data_far`; and by
    `late_far` if what belongs to late filters does not stay in the first cache.
    """

    dot: float
    operand: float
    direct: dict[int, float]
    direct_sum: float
    move: dict[int, float]
    sum: dict[int, float]
    filter: dict[int, float]
    tile: float
    line: float
    line_far: float
    again: float
    data: int
    data_far: float
    late_far: float


# Fitted on a Zen 3, and, of 512 bits with VNNI, on a Zen 4 (docs/decisions.md).
_MADD = _Costs(
    dot=1.74,
    operand=0.72,
    direct={0: 4.8, 1: 3.6, 2: 3.1},
    direct_sum=30.0,
    move={2: 153.0, 4: 620.0},
    sum={2: 88.0, 4: 430.0},
    filter={2: 45.0, 4: 90.0},
    tile=20.0,
    line=20.0,
    line_far=35.0,
    again=4.0,
    data=256 * 1024,
    data_far=0.1,
    late_far=1.2,
)
_VNNI = _Costs(
    dot=1.0,
    operand=0.05,
    direct={0: 1.02},
    direct_sum=6.0,
    move={2: 35.0, 4: 90.0},
    sum={2: 70.0, 4: 230.0},
    filter={2: 60.0, 4: 140.0},
    tile=5.0,
    line=12.0,
    line_far=15.0,
    again=0.3,
    data=128 * 1024,
    data_far=0.03,
    late_far=1.0,
)
_NEAR = 256 * 1024
_FAR = 2 << 20
_HELD = 128 * 1024
# What a part should take of the first cache; channels that a part may have, and has at most where it takes more.
_FIRST = 24 * 1024
_PARTS = range(8, 72, 8)
_PART = 32


@dataclass(frozen=True)
class WinogradConfig:
    """The knobs of one kernel.

    `columns` tiles of 2x2 pixels by `vectors` vectors of outputs are held in registers; `unroll` pairs of channels are
    unrolled. `order` is "rows" (a parallel block is `block` rows of tiles with all outputs) or "panels" (a parallel
    block is `panels` vectors of outputs). The products of `block` rows of tiles with `panels` vectors are kept at a
    time. `prefetch` fetches the next panel of weights.

    With a `part`, filters are stored as they are, and the kernel transforms those of so many channels at a time, for a
    block of panels; `prefetch` then fetches the next part.
    """

    columns: int
    vectors: int
    unroll: int
    order: str
    block: int
    panels: int
    prefetch: bool
    part: int = 0

    def __post_init__(self) -> None:
        if min(self.columns, self.vectors, self.unroll, self.block, self.panels) < 1:
            raise ValueError(f"{self}: every knob is at least 1")
        if self.part < 0:
            raise ValueError(f"{self}: a part is some channels, or 0")
        if self.order not in ("rows", "panels"):
            raise ValueError(f'order is "rows" or "panels", not "{self.order}"')
        if self.panels % self.vectors:
            raise ValueError(f"{self}: {self.vectors} vectors do not divide {self.panels}")

    def check(self, target: CpuTarget) -> None:
        """Refuse a register tile that spills: accumulators, the weight vectors and a broadcast must fit."""
        used = tile_registers(self.columns * self.vectors, self.vectors, target.wide)
        if used > target.registers:
            raise ValueError(f"{self} needs {used} registers of {target.registers}")


def winograd_takes(shape: ConvShape) -> bool:
    """Whether the kernels compute `shape`: dense 3x3 filters."""
    return (
        (shape.kernel, shape.strides, shape.dilations) == ((3, 3), (1, 1), (1, 1))
        and (shape.groups, shape.planes) == (1, FLAT)
        and shape.in_channels <= WINOGRAD_CHANNELS
    )


def winograd_size(
    shape: ConvShape, direct: CpuTarget, threads: int, sizes: Iterable[int]
) -> int | None:
    """The size, of `sizes`, of the tiles that are expected to take the least time, None if `qconv2d` does: its target,
    as weights let it, is `direct`.

    A tenth less than that: measured and estimated times differ by some percent.
    """
    if not winograd_takes(shape):
        return None
    target, costs = direct.wide, _costs(direct)
    panels = -(-shape.out_channels // target.lanes)
    weights = 9 * shape.in_channels * shape.out_channels
    products = shape.macs / shape.out_channels * panels / 4
    outputs = shape.batch * shape.out_height * shape.out_width / 4 * panels
    each = costs.direct[2 if direct.paired else direct.summed]
    cost = 0.9 * (products * each + costs.direct_sum * outputs + _lines(weights, costs))
    found = None
    for size in sizes:
        config = default_winograd_config(shape, target, threads, size)
        less = _cost(shape, target, threads, config, size)
        if less < cost:
            found, cost = size, less
    return found


def winograd_packing(
    shape: ConvShape, target: CpuTarget, size: int, late: bool = False
) -> WinogradPacking:
    """The layout of the weight, transformed or to be transformed `late`."""
    wide = target.wide
    return WinogradPacking.of(shape, dot_layout(wide, conv_lanes(shape, wide)), size, late)


def default_winograd_config(
    shape: ConvShape, target: CpuTarget, threads: int, size: int
) -> WinogradConfig:
    """The heuristic choice for `shape` on `threads` threads, used where nothing was tuned."""

    def cost(config: WinogradConfig) -> float:
        return _cost(shape, target, threads, config, size)

    return min(_options(shape, target, size), key=cost)


def check_winograd_config(
    shape: ConvShape, target: CpuTarget, config: WinogradConfig, size: int
) -> None:
    """Refuse what spills, what would leave predicates in the inner loop, and shapes that the kernel does not compute.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the shape; or the shape
            has no such kernel.
    """
    if not winograd_takes(shape):
        raise ValueError(
            f"{shape}: this kernel is for 3x3 filters of up to {WINOGRAD_CHANNELS} channels"
        )
    config.check(target)
    packing = winograd_packing(shape, target, size)
    if packing.panels % config.panels:
        raise ValueError(f"{config}: {config.panels} panels do not divide {packing.panels}")
    if config.part and packing.padded_run % config.part:
        raise ValueError(f"{config}: {config.part} channels do not divide {packing.padded_run}")
    if config.part % packing.layout.depth:
        raise ValueError(f"{config}: an instruction takes {packing.layout.depth} channels")
    if config.block > packing.tiles(shape)[0]:
        raise ValueError(f"{config}: there are fewer rows of tiles")


def _options(shape: ConvShape, target: CpuTarget, size: int) -> Iterator[WinogradConfig]:
    packing = winograd_packing(shape, target, size)
    panels, pairs = packing.panels, -(-shape.in_channels // 2)
    down, across = packing.tiles(shape)
    taps = packing.tap_rows**2
    unroll = 2 if pairs % 2 == 0 else 1
    # Tiles of 4x4 gain nothing from it (28x28, 128 channels, in a model: 490 us without, 510 with).
    far = size == 2 and 2 * taps * shape.in_channels * shape.out_channels > _NEAR
    for vectors in (v for v in (1, 2, 3, 4) if panels % v == 0):
        for columns in _columns(vectors, down, across, target):
            tile = (columns, vectors, unroll)
            for block in range(1, down + 1):
                held = taps * block * across * target.lanes * 4
                chunks = [
                    n
                    for n in range(vectors, panels + 1, vectors)
                    if panels % n == 0 and (n == vectors or n * held <= _HELD)
                ]
                # Weights that are read again and again are near after the first time.
                once = far and block == down and shape.batch == 1
                yield WinogradConfig(*tile, "rows", block, chunks[-1], once)
            for chunk in reversed(chunks):
                yield WinogradConfig(*tile, "panels", down, chunk, far)
            part = _part(packing, vectors, down * across)
            if part and shape.batch == 1:
                yield WinogradConfig(columns, vectors, 2, "panels", down, vectors, True, part)


def _columns(vectors: int, down: int, across: int, target: CpuTarget) -> set[int]:
    """Of how many tiles a register tile may be: with 32 registers, of as many as leave few empty in a block of rows."""
    most = target.registers // 2
    if target.vector_bits < 512:
        return {most // vectors, (most - 1) // vectors}
    widest = (target.registers - vectors - 2) // vectors
    rows = (n * across for n in range(1, down + 1))
    return {-(-tiles // -(-tiles // widest)) for tiles in rows}


def _part(packing: WinogradPacking, vectors: int, tiles: int) -> int:
    """The most channels whose filters, with the data and the products of so many tiles, stay in the first cache; 0 if
    no part divides the channels."""
    parts = [n for n in _PARTS if packing.padded_run % n == 0]
    fitting = [n for n in parts if _part_bytes(packing, n, vectors, tiles) <= _FIRST]
    # Where products do not, parts are large, so that these are read and written less often.
    return max(fitting or [n for n in parts if n <= _PART], default=0)


def _part_bytes(packing: WinogradPacking, part: int, vectors: int, tiles: int) -> int:
    """Of the data, the transformed filters and the products of a part."""
    outputs = vectors * packing.layout.lanes
    return packing.tap_rows**2 * (2 * part * (outputs + tiles) + 4 * outputs * tiles)


def _costs(target: CpuTarget) -> _Costs:
    return _VNNI if target.vnni else _MADD


def _lines(weights: int, costs: _Costs, reads: int = 1) -> float:
    """What it costs to read so many bytes so many times."""
    once = costs.line_far if weights > _FAR else costs.line
    return weights / 64 * (once + (reads - 1) * (costs.again if weights > _NEAR else 0.0))


def _cost(
    shape: ConvShape, target: CpuTarget, threads: int, config: WinogradConfig, size: int
) -> float:
    """The time of a kernel, in vector instructions."""
    packing, costs = winograd_packing(shape, target, size), _costs(target)
    panels, channels, taps = packing.panels, shape.in_channels, packing.tap_rows**2
    down, across = packing.tiles(shape)
    blocks = shape.batch * -(-down // config.block)
    groups = blocks * -(-config.block * across // config.columns)
    dots = config.columns * config.vectors
    # Products and sums; weights and, if they are no operands of products, broadcasts of pairs.
    inside = target.vector_bits == 512 and config.vectors == 1
    operands = config.vectors + (0 if inside else config.columns)
    step = costs.dot * dots + costs.operand * operands
    pairs, parts = -(-channels // 2), packing.padded_run // config.part if config.part else 1
    sums = taps * groups * panels / config.vectors * (pairs * step + parts * costs.tile)
    rows = config.order == "rows"
    tiles = config.block * across * (1 if rows else shape.batch)
    sums *= 1 + costs.data_far * max(0.0, 2 * taps * tiles * channels / costs.data - 1)
    reads = blocks if rows else 1
    filters = channels * panels * target.lanes
    if config.part:
        if _part_bytes(packing, config.part, config.panels, tiles) > _FIRST:
            sums *= costs.late_far
        lines = _lines(9 * filters, costs, reads) + costs.filter[size] * pairs * panels * reads
    else:
        lines = _lines(2 * taps * filters, costs, reads)
    edges = costs.move[size] * groups * config.columns * -(-channels // 16)
    outputs = costs.sum[size] * shape.batch * down * across * panels
    loss = parallel_loss(blocks if rows else panels // config.panels, threads)
    return (sums + edges + outputs + lines) * loss
