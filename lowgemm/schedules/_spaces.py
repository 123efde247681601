"""Which configurations of a kernel are worth measuring: the values of every knob, in a fixed order.

A space holds what a schedule can be made of and leaves out what cannot win: tiles that compute the same number of tiles
with more padding, blocks too coarse for the threads, tiles with too few chains of accumulators to hide latency.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lowgemm.packing import ConvPacking, ConvShape, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    MOST_PIXELS,
    ConvConfig,
    DepthwiseConfig,
    DirectDepthwiseConfig,
    GroupedConfig,
    WinogradConfig,
    block_tiles,
    check_depthwise_config,
    check_direct_depthwise_config,
    check_grouped_config,
    check_winograd_config,
    depthwise_packing,
    direct_depthwise_packing,
    winograd_packing,
)

_C = TypeVar("_C")

# A dot product takes four to five cycles, two begin in one: fewer accumulators wait for each other.
_FEWEST_ACCUMULATORS = 4
# Padded pixels over real ones beyond which a tile cannot win, if another one wastes less.
_MOST_WASTE = 1.3
# Each block size is at least so many times the one before.
_BLOCK_STEP = 2.5
_UNROLLS = (1, 2, 4)
# Channels whose filters Winograd's kernels transform at a time.
_PARTS = (8, 16, 32, 64)
# Unrolled dot products beyond which code no longer fits the decoded instructions a CPU holds.
_MOST_UNROLLED = 64


def conv_space(shape: ConvShape, target: CpuTarget, threads: int) -> Iterator[ConvConfig]:
    """The configurations of `qconv2d` for `shape`, on `threads` threads."""
    for lanes in sorted({8, target.lanes}, reverse=True):
        packing = ConvPacking.of(shape, dot_layout(target, lanes))
        # Words in pairs are not unrolled.
        steps = 1 if target.paired else packing.padded_run // packing.layout.depth
        widenings = (True, False) if target.dot_depth == 2 else (False,)
        for rows, columns, vectors in _tiles(shape, target, packing.panels // packing.groups):
            dots = rows * columns * vectors
            unrolls = [
                u for u in _UNROLLS if steps % u == 0 and (u == 1 or u * dots <= _MOST_UNROLLED)
            ]
            for unroll in unrolls:
                for widen in widenings:
                    for order, block, prefetch in _orders(shape, rows, columns, threads, widen):
                        yield ConvConfig(
                            rows, columns, vectors, lanes, unroll, order, block, widen, prefetch
                        )


def depthwise_space(shape: ConvShape, target: CpuTarget, threads: int) -> Iterator[DepthwiseConfig]:
    """The configurations of `qdepthwise2d` for `shape`, on `threads` threads."""
    packing = depthwise_packing(shape, target, 1)
    tiles = packing.rows(shape.out_height) // packing.phases
    blocks = [packing.phases * b for b in sorted({*_blocks(tiles, 1, threads), tiles})]
    configs = (
        DepthwiseConfig(columns, block_rows, segments)
        for segments in (1, 2, 4)
        for columns in range(1, 8)
        for block_rows in blocks
    )
    yield from _fitting(configs, lambda config: check_depthwise_config(shape, target, config))


def direct_depthwise_space(
    shape: ConvShape, target: CpuTarget, threads: int
) -> Iterator[DirectDepthwiseConfig]:
    """The configurations of `qdepthwise_direct` for `shape`, on `threads` threads."""
    packing = direct_depthwise_packing(shape, target, DirectDepthwiseConfig(1))
    blocks = packing.order.blocks(shape.out_channels)
    configs = (
        DirectDepthwiseConfig(pixels, copied)
        for copied in (0, *_divisors(blocks, blocks))
        for pixels in range(1, MOST_PIXELS + 1)
    )
    yield from _fitting(
        configs, lambda config: check_direct_depthwise_config(shape, target, config)
    )


def grouped_space(shape: ConvShape, target: CpuTarget, threads: int) -> Iterator[GroupedConfig]:
    """The configurations of `qgrouped2d` for `shape`, on `threads` threads."""
    configs = (
        GroupedConfig(pixels, whole)
        for pixels in range(1, shape.out_width + 1)
        for whole in (False, True)
    )
    yield from _fitting(configs, lambda config: check_grouped_config(shape, target, config))


def winograd_space(
    shape: ConvShape, target: CpuTarget, threads: int, size: int
) -> Iterator[WinogradConfig]:
    """The configurations of Winograd kernels for `shape`, on `threads` threads."""
    packing = winograd_packing(shape, target, size)
    panels, pairs = packing.panels, -(-shape.in_channels // 2)
    down, _ = packing.tiles(shape)
    orders = [
        *(("rows", block, False) for block in _blocks(down, shape.out_images, threads)),
        ("rows", down, True),
        ("panels", down, False),
        ("panels", down, True),
    ]
    parts = [part for part in _PARTS if packing.padded_run % part == 0]
    configs = (
        WinogradConfig(columns, vectors, unroll, order, block, chunk * vectors, prefetch, part)
        for vectors in _divisors(panels, 4)
        for columns in range(1, 17)
        if columns * vectors >= _FEWEST_ACCUMULATORS
        for chunk in _divisors(panels // vectors, panels)
        for order, block, prefetch in orders
        for part in ((0, *parts) if (order, prefetch, chunk) == ("panels", True, 1) else (0,))
        for unroll in _UNROLLS
        if (part // 2 or pairs) % unroll == 0 and unroll * columns * vectors <= 32
    )
    yield from _fitting(configs, lambda config: check_winograd_config(shape, target, config, size))


def _fitting(configs: Iterable[_C], check: Callable[[_C], None]) -> Iterator[_C]:
    """Those of `configs` that `check` does not refuse."""
    for config in configs:
        try:
            check(config)
        except ValueError:
            continue
        yield config


def _tiles(shape: ConvShape, target: CpuTarget, panels: int) -> list[tuple[int, int, int]]:
    """(rows, columns, vectors) of the register tiles."""
    height, width = shape.grid
    found: list[tuple[float, tuple[int, int, int]]] = []
    for vectors in _divisors(panels, 12 if height * width == 1 else 4):
        for rows in range(1, min(4, height) + 1):
            for columns in range(1, min(width, 28) + 1):
                # Of the widths that cut a row into the same number of tiles, the smallest; rows of tiles are for
                # images that a tile spans.
                if columns > 1 and -(-width // columns) == -(-width // (columns - 1)):
                    continue
                if rows > 1 and columns < width:
                    continue
                config = ConvConfig(rows, columns, vectors, 8, 1, "rows", 1)
                try:
                    config.check(target)
                except ValueError:
                    continue
                covered = -(-height // rows) * rows * (-(-width // columns) * columns)
                found.append((covered / (height * width), (rows, columns, vectors)))
    least = min(waste for waste, _ in found)
    found = [(waste, tile) for waste, tile in found if waste <= max(least, _MOST_WASTE)]
    most = max(r * c * v for _, (r, c, v) in found)
    fewest = min(most, _FEWEST_ACCUMULATORS)
    return [tile for _, tile in found if tile[0] * tile[1] * tile[2] >= fewest]


def _orders(
    shape: ConvShape, rows: int, columns: int, threads: int, widen: bool
) -> Iterator[tuple[str, int, bool]]:
    """(order, block, prefetch) of the loops outside the tile."""
    for block in _blocks(block_tiles(shape, rows, columns), shape.out_images, threads):
        yield "rows", block, False
    yield "panels", 1, False
    if not widen and shape.out_height * shape.out_width > 1:
        yield "panels", 1, True


def _blocks(extent: int, others: int, threads: int) -> list[int]:
    """Sizes of parallel blocks over `extent` iterations: divisors, spread evenly in their logarithm."""
    found = [1]
    for size in _divisors(extent, extent):
        if size >= _BLOCK_STEP * found[-1] and extent // size * others >= threads:
            found.append(size)
    return found


def _divisors(n: int, limit: int) -> list[int]:
    return [d for d in range(1, min(n, limit) + 1) if n % d == 0]
