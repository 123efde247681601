"""What the cost model sees of a task and a configuration: numbers that mean the same for every shape.

Counts and bytes are taken as logarithms of base 2. Features of another family are absent (NaN), which the trees take.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lowgemm.packing import ConvPacking, ConvShape
from lowgemm.schedules import (
    WINOGRAD_FAMILIES,
    KernelTask,
    depthwise_packing,
    dot_layout,
    needs_stage,
    parallel_loss,
)
from lowgemm.targets.peak import cache_sizes
from lowgemm.tiling import (
    block_tiles,
    blocks_together,
    direct_depthwise_packing,
    grouped_packing,
    winograd_packing,
)

# Where the machine does not say how large its caches are; L1 and L2 of a common CPU.
_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


def features(task: KernelTask, config: Any) -> dict[str, float]:
    """The features of one configuration, by name; knobs have their own names."""
    found = {f"shape {name}": value for name, value in _shape(task).items()}
    found |= _FAMILIES[task.family](task, config)
    return found


def matrix(
    tasks: Sequence[KernelTask], configs: Sequence[Any], names: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Features `(rows, names)` float32 of pairs of task and configuration; `names` as given, or all that occur."""
    rows = [features(task, config) for task, config in zip(tasks, configs, strict=True)]
    found = list(names) if names is not None else sorted({name for row in rows for name in row})
    values = [[row.get(name, math.nan) for name in found] for row in rows]
    return np.array(values, np.float32).reshape(len(rows), len(found)), found


def _shape(task: KernelTask) -> dict[str, float]:
    shape = task.shape
    pixels = shape.out_height * shape.out_width
    depth = shape.kernel[0] * shape.kernel[1] * shape.in_channels // shape.groups
    traffic = shape.batch * (
        shape.height * shape.width * shape.in_channels + pixels * shape.out_channels
    )
    weights = depth * shape.out_channels
    return {
        "pixels": math.log2(pixels),
        "width": math.log2(shape.out_width),
        "outputs": math.log2(shape.out_channels),
        "depth": math.log2(depth),
        "taps": shape.kernel[0] * shape.kernel[1],
        "stride": shape.strides[0],
        "groups": math.log2(shape.groups),
        "macs": math.log2(shape.macs),
        "intensity": math.log2(shape.macs / (traffic + weights)),
        "weights": math.log2(weights),
        "threads": task.threads,
        "residual": float(task.residual is not None),
    }


def _conv(task: KernelTask, config: Any) -> dict[str, float]:
    shape, target = task.shape, task.target
    assert isinstance(shape, ConvShape)
    packing = ConvPacking.of(shape, dot_layout(target, config.lanes))
    height, width = shape.grid
    tiles_y, tiles_x = -(-height // config.rows), -(-width // config.columns)
    pixels, dots = config.rows * config.columns, config.rows * config.columns * config.vectors
    waste = tiles_y * config.rows * tiles_x * config.columns / (height * width)
    # What one step of the reduction issues besides its dot products, for each of them.
    operand = 1 if packing.layout.lhs == "uint8" else 2
    loads = (pixels + config.vectors * (1 if config.widen or operand == 1 else 2)) / dots
    steps = packing.tap_rows * packing.tap_cols * packing.padded_run // packing.layout.depth
    weight = 2 if config.widen else 1
    panel = config.vectors * config.lanes * steps * packing.layout.depth * weight
    panels = packing.panels // config.vectors
    strides = (1, 1) if shape.joined else shape.strides
    rows = (config.rows - 1) * strides[0] + shape.kernel[0]
    run = (config.columns - 1) * strides[1] + shape.kernel[1]
    window = rows * run * packing.group_in * operand
    taken = height * width if shape.joined else shape.height * shape.width
    image = taken * shape.in_channels * operand
    if config.order == "rows":
        tiles = block_tiles(shape, config.rows, config.columns)
        blocks = shape.out_images * (tiles // config.block)
        block_rows, block_columns = config.block * config.rows * strides[0], shape.width
        if tiles_y == 1:
            block_rows, block_columns = rows, config.block * config.columns * strides[1]
        block = (block_rows + shape.kernel[0]) * block_columns
        held = block * shape.in_channels * operand + panel * panels
    else:
        blocks, held = panels, panel + image
    staged = needs_stage(shape, packing, task.in_dtype, config)
    return {
        "rows": config.rows,
        "columns": config.columns,
        "vectors": config.vectors,
        "lanes": config.lanes,
        "unroll": config.unroll,
        "order": float(config.order == "rows"),
        "block": math.log2(config.block),
        "widen": float(config.widen),
        "prefetch": float(config.prefetch),
        "accumulators": dots,
        "registers free": target.registers - dots - config.vectors,
        "waste": waste,
        "loads per dot": loads,
        "work": waste * (1 + loads),
        "steps": math.log2(steps),
        "unrolled dots": config.unroll * dots,
        "tiles per row": tiles_x,
        "panels": math.log2(panels),
        "staged": float(staged),
        "blocks": math.log2(blocks),
        "balance": parallel_loss(blocks, task.threads),
        **_footprints(panel=panel, window=window, block=held),
    }


def _depthwise(task: KernelTask, config: Any) -> dict[str, float]:
    shape, target = task.shape, task.target
    packing = depthwise_packing(shape, target, config.segments)
    segment = shape.out_width // config.segments
    tiles = -(-segment // config.columns)
    channel_blocks = packing.blocks(shape.out_channels)
    row_blocks = packing.rows(shape.out_height) // config.block_rows
    blocks = shape.batch * row_blocks * (channel_blocks // blocks_together(shape, packing))
    width = segment * shape.strides[1] + shape.kernel[1]
    rows = config.block_rows * shape.strides[0] + shape.kernel[0]
    row = width * target.vector_bits // 8
    return {
        "columns": config.columns,
        "block_rows": math.log2(config.block_rows),
        "segments": config.segments,
        "whole image": float(config.block_rows == packing.rows(shape.out_height)),
        "registers free": target.registers - 4 * config.columns,
        "waste": tiles * config.columns / segment,
        "border": (shape.kernel[1] - 1) / segment,
        "edge": (shape.kernel[0] - 1) / (config.block_rows * shape.strides[0]),
        "tiles per row": tiles,
        "unused channels": channel_blocks * packing.channels / shape.out_channels,
        "blocks": math.log2(blocks),
        "balance": parallel_loss(blocks, task.threads),
        **_footprints(block=rows * row, window=row * packing.layout.depth),
    }


def _direct_depthwise(task: KernelTask, config: Any) -> dict[str, float]:
    shape, target = task.shape, task.target
    packing = direct_depthwise_packing(shape, target, config)
    tiles = -(-shape.out_width // config.pixels)
    blocks = packing.order.blocks(shape.out_channels)
    together = config.copied or blocks
    filters = shape.planes.kernel * packing.filter_bytes(together * packing.order.channels)
    image = shape.planes.size * shape.height * shape.width * config.copied * packing.order.channels
    tasks = shape.out_images * shape.out_height
    if config.copied:
        tasks = shape.batch * blocks // config.copied
    return {
        "pixels": config.pixels,
        "copied": float(config.copied > 0),
        "registers free": target.registers - 4 * config.pixels,
        "waste": tiles * config.pixels / shape.out_width,
        "shared": len(packing.steps) / config.pixels,
        "balance": parallel_loss(tasks, task.threads),
        **_footprints(filters=filters, image=max(1, image)),
    }


def _grouped(task: KernelTask, config: Any) -> dict[str, float]:
    shape, target = task.shape, task.target
    packing = grouped_packing(shape, target)
    assert packing is not None
    tiles = -(-shape.out_width // config.pixels)
    dots = config.pixels * packing.outputs
    return {
        "pixels": config.pixels,
        "whole": float(config.whole),
        "registers free": target.registers - dots,
        "waste": tiles * config.pixels / shape.out_width,
        **_footprints(filters=packing.channels * packing.outputs * shape.taps),
    }


def _winograd(task: KernelTask, config: Any) -> dict[str, float]:
    shape, target = task.shape, task.target
    packing = winograd_packing(shape, target, WINOGRAD_FAMILIES[task.family])
    down, across = packing.tiles(shape)
    blocks = -(-down // config.block)
    tiles = config.block * across
    groups = -(-tiles // config.columns)
    dots = config.columns * config.vectors
    panels = config.order == "panels"
    parts = packing.panels // config.panels if panels else shape.batch * blocks
    held = packing.tap_rows**2 * groups * config.columns
    return {
        "columns": config.columns,
        "vectors": config.vectors,
        "unroll": config.unroll,
        "panels": float(panels),
        "prefetch": float(config.prefetch),
        "part": config.part,
        "block": config.block,
        "held panels": config.panels,
        "accumulators": dots,
        "registers free": target.registers - dots - config.vectors,
        "waste": packing.size**2
        * (blocks * groups * config.columns)
        / (shape.out_height * shape.out_width),
        "loads per dot": (config.columns + config.vectors) / dots,
        "steps": math.log2(packing.padded_run // 2),
        "blocks": math.log2(parts),
        "balance": parallel_loss(parts, task.threads),
        **_footprints(
            moved=2 * held * packing.padded_run * (blocks * shape.batch if panels else 1),
            products=4 * held * config.panels * packing.layout.lanes,
        ),
    }


def _footprints(**sizes: int) -> dict[str, float]:
    """Bytes of each, and their share of each cache."""
    caches = {**_CACHES, **cache_sizes()}
    found = {f"{name} bytes": math.log2(size) for name, size in sizes.items()}
    for name, size in sizes.items():
        for cache in ("L1", "L2", "L3"):
            found[f"{name} / {cache}"] = size / caches[cache]
    return found


_FAMILIES = {
    "qconv2d": _conv,
    "qdepthwise2d": _depthwise,
    "qdepthwise_direct": _direct_depthwise,
    "qgrouped2d": _grouped,
    **dict.fromkeys(WINOGRAD_FAMILIES, _winograd),
}
