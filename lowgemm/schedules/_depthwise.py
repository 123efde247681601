"""The schedule of depthwise convolution: lanes are channels, the reduction runs over interleaved rows and columns.

for rows, block of channels (parallel):
  copy the input with its border
  interleave d rows of it
  for y, x tile:
    acc[columns, 4 vectors] = 0
    for row group, column tap:  acc += dot(interleaved vector, weight vector)
    requantize four vectors to one, in order
"""

from dataclasses import dataclass

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvShape, DepthwisePacking, DotLayout
from lowgemm.schedules import _steps
from lowgemm.schedules._conv import SERIAL_MACS
from lowgemm.targets import CpuTarget


@dataclass(frozen=True)
class DepthwiseConfig:
    """The knobs of one kernel.

    `columns` pixels of one block (four vectors) are held in registers; a parallel block is `block_rows` output rows of
    one block of channels, whose vectors hold pixels of `segments` parts of a row (see `packing.DepthwisePacking`).
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
    limit = 7 if target.registers == 32 else 2
    options = [
        (s, c)
        for s in (1, 2, 4)
        for c in range(1, limit + 1)
        if 4 * s <= target.lanes and shape.out_width % s == 0
    ]

    def work(option: tuple[int, int]) -> float:
        segments, columns = option
        packing = depthwise_packing(target, segments)
        tiles = -(-shape.out_width // (segments * columns)) * packing.blocks(shape.out_channels)
        # A tile's time: its pixels; the border that each segment stages anew; weight loads, once a tile.
        border = (shape.kernel[1] - 1) * columns / max(1, shape.out_width // segments)
        # Wide tiles of small filters spill more than they save in weight loads.
        spill = 1.06 if columns > 4 and shape.kernel[0] * shape.kernel[1] <= 9 else 1.0
        return tiles * (columns + 0.5 * border + 0.5) * (1 + 0.02 * segments) * spill

    segments, columns = min(options, key=work)
    packing = depthwise_packing(target, segments)
    width = -(-shape.out_width // segments) * shape.strides[1] + shape.kernel[1]
    row_bytes = width * target.vector_bits // 8 * 4
    whole = DepthwiseConfig(columns, shape.out_height, segments)
    if shares_rows(shape, packing.layout, whole):
        # What is interleaved for an image, once for all rows, stays in L2.
        image_bytes = (shape.height + shape.kernel[0]) * row_bytes
        if image_bytes <= 256 * 1024 and packing.blocks(shape.out_channels) >= 4:
            return whole
    # The copy of a block's rows and what is interleaved for one row stay in L2; each block copies its border anew.
    edge = 0.1 * (shape.kernel[0] - 1) / shape.strides[0] + 0.02
    limit = 256 * 1024 // (row_bytes * shape.strides[0])
    others = shape.out_images * packing.blocks(shape.out_channels)
    block_rows = _steps.balanced_divisor(shape.out_height, limit, threads, edge, others)
    return DepthwiseConfig(columns, block_rows, segments)


def check_depthwise_config(shape: ConvShape, target: CpuTarget, config: DepthwiseConfig) -> None:
    """Refuse what spills, and what would leave guards around vectors.

    Raises:
        ValueError: the configuration does not fit the target's registers or vectors, or does not divide the shape.
    """
    config.check(target)
    if 4 * config.segments > target.lanes or config.segments not in (1, 2, 4):
        raise ValueError(f"{config}: a vector of {target.level} has {target.lanes // 4} segments")
    if shape.out_height % config.block_rows or shape.out_width % config.segments:
        raise ValueError(f"{config} does not divide {shape.out_height} rows of {shape.out_width}")


def shares_rows(shape: ConvShape, layout: DotLayout, config: DepthwiseConfig) -> bool:
    """Whether interleaved rows of a plane are made once for all output rows that use them.

    Only for whole images: TVM's compute_at does not see that blocks of rows overlap, and would leave rows out.
    """
    many = shape.kernel[0] > layout.depth and shape.planes.kernel == 1
    return many and shape.strides[0] == 1 and config.block_rows == shape.out_height


def depthwise_packing(target: CpuTarget, segments: int) -> DepthwisePacking:
    """The order in which `target`'s kernels hold channels."""
    dot = intrin.lanewise_dot(target, target.lanes)
    return DepthwisePacking(DotLayout(dot.lanes, dot.depth, dot.lhs, dot.rhs), segments)


def schedule_qdepthwise2d(
    func: tvm.tirx.PrimFunc,
    shape: ConvShape,
    packing: DepthwisePacking,
    out_dtype: str,
    target: CpuTarget,
    config: DepthwiseConfig,
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qdepthwise2d`'s function around the lanewise dot product.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the shape.
    """
    check_depthwise_config(shape, target, config)
    dot = intrin.lanewise_dot(target, packing.layout.lanes)
    depth = packing.layout.depth
    sch = s_tir.Schedule(func)
    acc, packed, stage = (sch.get_sblock(name) for name in ("acc", "packed", "stage"))
    sch.set_scope(acc, 0, "local")
    direct = len(sch.get_consumers(packed)) == 0
    dst = packed if direct else sch.get_sblock("dst")

    # dst[n, [z,] y, x, channels]  ->  parallel block, row, tile, column
    if direct:
        *images, y, x, b, k, j, q = sch.get_loops(dst)
        inner = [k, j, q]
    else:
        *images, y, segment, x, o = sch.get_loops(dst)
        b, g = sch.split(o, [None, packing.channels])
        inner = [g]
    yb, yi = sch.split(y, [None, config.block_rows])
    xo, xi = sch.split(x, [None, config.columns])
    sch.reorder(*images, yb, b, yi, xo, *([] if direct else [segment]), xi, *inner)
    block = sch.fuse(*images, yb, b)
    if shape.macs >= SERIAL_MACS // 4:  # a quarter of the rate of dense products
        sch.parallel(block)
    if not direct:
        _steps.vectorize_guarded(sch, inner[0], shape.out_channels)
        sch.compute_at(packed, xo, preserve_unit_loops=True)
        *_, xi, _, k, j, q = sch.get_loops(packed)
        inner = [k, j, q]
    sch.unroll(xi)

    # Everything finds its place before a tensorized block hides what it reads.
    sch.compute_at(acc, xo, preserve_unit_loops=True)
    shared = shares_rows(shape, packing.layout, config)
    sch.compute_at(stage, block if shared else yi, preserve_unit_loops=True)
    padded = sch.get_sblock("padded")
    sch.compute_at(padded, block, preserve_unit_loops=True)
    _vectorize_padded(sch, padded, shape, packing)
    if dot.rhs != "int8":
        widen = sch.get_sblock("widen")
        _steps.vectorize_innermost(sch, sch.fuse(*sch.get_loops(widen)), 16)

    rows = min(depth, shape.kernel[0])
    interleave = intrin.interleave_rows(rows, shape.dilations[0], depth, packing.chunks)
    extents = [_steps.extent(sch, loop) for loop in sch.get_loops(stage)[-6:]]
    sch.tensorize(sch.get_loops(stage)[-3], interleave)
    if not shared:
        _spread_rows(sch, sch.get_sblock("stage_o"), *extents)
    sch.tensorize(inner[0], intrin.requantize_block(out_dtype, packing.chunks))
    *_, ax, _, aj, ak, aq, r, c, i = sch.get_loops(acc)
    sch.reorder(aj, r, ax, c, ak, aq, i)
    init = sch.decompose_reduction(acc, aj)
    *outer, k, q = sch.get_loops(init)[-5:]
    for loop in outer:
        sch.unroll(loop)
    sch.vectorize(sch.fuse(k, q))
    for loop in (aj, r, ax, c):
        sch.unroll(loop)
    sch.tensorize(ak, dot.name)
    return sch.mod["main"]


# Beyond so many interleaved rows at the same place of a page, some leave the first cache (8 ways).
_MOST_ROWS_ALIKE = 4
_PAGE = 1024  # words


def _spread_rows(sch, stage, groups, x, b, j, k, q) -> None:
    """Keep the interleaved rows of one output row apart in the cache: three eighths of a page beyond a multiple."""
    if groups > _MOST_ROWS_ALIKE and x * b * j * k * q % (_PAGE // 4) == 0:
        axis = len(sch.get(stage).iter_vars) - 6
        sch.storage_align(stage, 0, axis, _PAGE // 4, 3 * _PAGE // 16)


def _vectorize_padded(sch, padded, shape, packing) -> None:
    loops = sch.get_loops(padded)
    sch.annotate(loops[-3], "pragma_loop_partition_hint", 1)
    if shape.in_channels != shape.out_channels:
        return  # a gather
    width = packing.channels if packing.segments == 1 else 16
    _steps.vectorize_innermost(sch, sch.get_loops(padded)[-1], width, shape.out_channels)
