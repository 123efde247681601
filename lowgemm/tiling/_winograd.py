"""Register tiles and blocks of Winograd convolutions, and where they take less time than direct ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lowgemm.packing import FLAT, ConvShape, WinogradPacking, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._balance import parallel_loss
from lowgemm.tiling._conv import conv_lanes
from lowgemm.tiling._registers import tile_registers

# Of so many channels nothing that is added up in 32 bits exceeds them. For each channel, an entry of M, a sum of A^T M
# and four times an accumulator are at most 4 * 9 * 255 * 128; before its last term, a sum is off by that term.
WINOGRAD_CHANNELS = (2**31 - 1) // (2 * 4 * 9 * 255 * 128)

# What things cost, in vector instructions, and bytes that lie near; fitted on a Zen 3 (docs/decisions.md).
_MOVE = 153.0  # the input of a tile, 16 channels
_SUM = 88.0  # the output of a tile, a vector of channels
_DIRECT_SUM = 30.0  # the same of a direct kernel
_TILE = 20.0  # a register tile, before and after its sum
_LINE = 29.0  # a line of weights that come from beyond L2
_AGAIN = 4.0  # the same, read once more
_DIRECT = {0: 4.8, 1: 3.6, 2: 3.1}  # four products a lane by the groups that 16 bits may sum
_NEAR = 256 * 1024
_HELD = 128 * 1024


@dataclass(frozen=True)
class WinogradConfig:
    """The knobs of one kernel.

    `columns` tiles of 2x2 pixels by `vectors` vectors of outputs are held in registers; `unroll` pairs of channels are
    unrolled. `order` is "rows" (a parallel block is `block` rows of tiles with all outputs) or "panels" (a parallel
    block is `panels` vectors of outputs). The products of `block` rows of tiles with `panels` vectors are kept at a
    time. `prefetch` fetches the next panel of weights.
    """

    columns: int
    vectors: int
    unroll: int
    order: str
    block: int
    panels: int
    prefetch: bool

    def __post_init__(self) -> None:
        if min(self.columns, self.vectors, self.unroll, self.block, self.panels) < 1:
            raise ValueError(f"{self}: every knob is at least 1")
        if self.order not in ("rows", "panels"):
            raise ValueError(f'order is "rows" or "panels", not "{self.order}"')
        if self.panels % self.vectors:
            raise ValueError(f"{self}: {self.vectors} vectors do not divide {self.panels}")

    def check(self, target: CpuTarget) -> None:
        """Refuse a register tile that spills: accumulators, the weight vectors and a broadcast must fit."""
        used = tile_registers(self.columns * self.vectors, self.vectors, target)
        if used > target.registers:
            raise ValueError(f"{self} needs {used} registers of {target.registers}")


def winograd_takes(shape: ConvShape, target: CpuTarget) -> bool:
    """Whether the kernel computes `shape`: dense 3x3 filters, on a level without VNNI.

    With VNNI an instruction takes four products of 8 bits, and there is nothing to gain with two of 16.
    """
    return (
        (shape.kernel, shape.strides, shape.dilations) == ((3, 3), (1, 1), (1, 1))
        and (shape.groups, shape.planes) == (1, FLAT)
        and shape.in_channels <= WINOGRAD_CHANNELS
        and target.dot_depth == 2
    )


def winograd_pays(shape: ConvShape, direct: CpuTarget, threads: int) -> bool:
    """Whether the kernel is expected to take less time than `qconv2d`, whose target, as weights let it, is `direct`.

    A tenth less: measured and estimated times differ by some percent.
    """
    target = direct.summing(0)
    if not winograd_takes(shape, target):
        return False
    config = default_winograd_config(shape, target, threads)
    tiles = shape.batch * math.prod(WinogradPacking.tiles(shape))
    panels = -(-shape.out_channels // target.lanes)
    weights = 9 * shape.in_channels * shape.out_channels
    products = shape.macs / shape.out_channels * panels / 4
    cost = products * _DIRECT[direct.summed] + _DIRECT_SUM * tiles * panels + _lines(weights)
    return _cost(shape, target, threads, config) < 0.9 * cost


def winograd_packing(shape: ConvShape, target: CpuTarget) -> WinogradPacking:
    """The layout of the transformed weight."""
    return WinogradPacking.of(shape, dot_layout(target, conv_lanes(shape, target)))


def default_winograd_config(
    shape: ConvShape, target: CpuTarget, threads: int = 1
) -> WinogradConfig:
    """The heuristic choice for `shape` on `threads` threads, used where nothing was tuned."""
    return min(_options(shape, target), key=lambda config: _cost(shape, target, threads, config))


def check_winograd_config(shape: ConvShape, target: CpuTarget, config: WinogradConfig) -> None:
    """Refuse what spills, what would leave predicates in the inner loop, and shapes that the kernel does not compute.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the shape; or the shape
            has no such kernel.
    """
    if not winograd_takes(shape, target):
        raise ValueError(
            f"{shape}: this kernel is for 3x3 filters of up to {WINOGRAD_CHANNELS} channels, without VNNI"
        )
    config.check(target)
    panels = winograd_packing(shape, target).panels
    if panels % config.panels:
        raise ValueError(f"{config}: {config.panels} panels do not divide {panels}")
    if config.block > WinogradPacking.tiles(shape)[0]:
        raise ValueError(f"{config}: there are fewer rows of tiles")


def _options(shape: ConvShape, target: CpuTarget) -> Iterator[WinogradConfig]:
    panels, pairs = winograd_packing(shape, target).panels, -(-shape.in_channels // 2)
    down, across = WinogradPacking.tiles(shape)
    unroll = 2 if pairs % 2 == 0 else 1
    most = target.registers // 2
    far = 32 * shape.in_channels * shape.out_channels > _NEAR
    for vectors in (v for v in (1, 2, 4) if panels % v == 0):
        for columns in {most // vectors, (most - 1) // vectors}:
            for block in range(1, down + 1):
                held = 16 * block * across * target.lanes * 4
                chunks = [
                    n
                    for n in range(vectors, panels + 1, vectors)
                    if panels % n == 0 and (n == vectors or n * held <= _HELD)
                ]
                # Weights that are read again and again are near after the first time.
                once = far and block == down and shape.batch == 1
                tile = (columns, vectors, unroll)
                yield WinogradConfig(*tile, "rows", block, chunks[-1], once)
            for chunk in reversed(chunks):
                yield WinogradConfig(columns, vectors, unroll, "panels", down, chunk, far)


def _lines(weights: int, reads: int = 1) -> float:
    """What it costs to read so many bytes so many times."""
    return weights / 64 * (_LINE + (reads - 1) * _AGAIN) if weights > _NEAR else 0.0


def _cost(shape: ConvShape, target: CpuTarget, threads: int, config: WinogradConfig) -> float:
    """The time of a kernel, in vector instructions."""
    panels, channels = winograd_packing(shape, target).panels, shape.in_channels
    down, across = WinogradPacking.tiles(shape)
    blocks = shape.batch * -(-down // config.block)
    groups = blocks * -(-config.block * across // config.columns)
    dots = config.columns * config.vectors
    # Products and sums; broadcasts of pairs; weights.
    step = 1.74 * dots + 0.52 * config.columns + 0.92 * config.vectors
    sums = 16 * groups * panels / config.vectors * (-(-channels // 2) * step + _TILE)
    kept = 16 * config.block * across * channels * 2
    rows = config.order == "rows"
    if not rows:
        kept *= shape.batch
    sums *= 1 + 0.1 * max(0.0, kept / _NEAR - 1)
    reads = blocks if rows else 1
    lines = _lines(32 * channels * panels * target.lanes, reads)
    edges = _MOVE * groups * config.columns * -(-channels // 16)
    outputs = _SUM * shape.batch * down * across * panels
    loss = parallel_loss(blocks if rows else panels // config.panels, threads)
    return (sums + edges + outputs + lines) * loss
