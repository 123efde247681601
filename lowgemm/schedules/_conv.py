"""The schedule of the dot-product convolution and GEMM family, one body for every level.

for block (parallel):                 a block of rows, or a block of weight panels
  [stage the block's input]
  for panel, tile:
    acc[rows, columns, vectors] = 0   registers
    for tap, k:  acc += dot(broadcast input group, weight vector)
    for row, column, vector:  dst = epilogue(acc)
"""

from dataclasses import dataclass

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvPacking, ConvShape, dot_layout
from lowgemm.schedules import _steps
from lowgemm.schedules._prefetch import mark_loop, prefetch_weights
from lowgemm.targets import CpuTarget
from lowgemm.topi import ConvForm, holds_codes

# Below this an image is so small against the weights that panels of weights are the blocks to share among threads.
FEW_PIXELS = 400
# A kernel of fewer multiply-accumulates takes some 2 us: waking a second thread gains nothing, and may wait for a CPU.
SERIAL_MACS = 1_000_000


@dataclass(frozen=True)
class ConvConfig:
    """The knobs of one kernel.

    `rows` x `columns` pixels by `vectors` x `lanes` outputs are held in registers; `unroll` dot-product groups of the
    reduction are unrolled. `order` is "rows" (a parallel block is `block` tile rows with all outputs: large images) or
    "panels" (a parallel block is one step of outputs: large weights). `widen` stores weights again in 16 bits before
    use, where the target's instruction wants that. `prefetch` fetches the next panel of weights under "panels", where
    they are read as they are stored.
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
        widening = 0 if target.dot_depth == 4 else 1
        used = self.rows * self.columns * self.vectors + self.vectors + 1 + widening
        # With one weight vector the product can overwrite the broadcast: no register more is needed.
        used -= 1 if self.vectors == 1 and widening else 0
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
        or (shape.taps == 1 and (shape.planes.stride, *shape.strides) != (1, 1, 1))
        or shape.out_width % config.columns != 0
        or shape.out_height % config.rows != 0
    )


def default_conv_config(shape: ConvShape, target: CpuTarget, threads: int = 1) -> ConvConfig:
    """The heuristic choice for `shape` on `threads` threads, used where nothing was tuned."""
    lanes = target.lanes if shape.out_channels > 8 else 8
    packing = ConvPacking.of(shape, dot_layout(target, lanes))
    panels = packing.panels // packing.groups
    rows, columns, vectors = _register_tile(shape, target, panels)
    pixels = shape.out_height * shape.out_width
    weights = shape.taps * shape.in_channels * shape.out_channels // shape.groups
    tile_rows = -(-shape.out_height // rows)
    # A block of rows re-reads all weights; a panel re-reads the whole input. The larger operand is read once.
    if shape.groups == 1 and (pixels < FEW_PIXELS or weights > 4 * pixels * shape.in_channels):
        order, block = "panels", 1
    else:
        order = "rows"
        # Input and output of a block stay in L2 beside the weights.
        staged = 2 * shape.in_channels * shape.strides[0] * shape.planes.kernel
        row_bytes = (staged + shape.out_channels) * shape.width * rows
        # Neighbours stage the rows between them twice.
        edge = 0.1 * (shape.kernel[0] - 1) / shape.strides[0] + 0.02
        limit = min(160 * 1024 // row_bytes, tile_rows // 4)
        block = _steps.balanced_divisor(tile_rows, limit, threads, edge, shape.out_images)
    if order == "panels":
        # Fewer vectors at once use inputs less often, but may leave every thread as much to do.
        divisors = [d for d in range(1, vectors + 1) if vectors % d == 0]
        vectors //= min(
            divisors,
            key=lambda d: _steps.parallel_loss(panels // vectors * d, threads) * (0.85 + 0.15 * d),
        )
    # A weight that meets fewer pixels than this is not worth storing again.
    widen = target.dot_depth == 2 and pixels > 4 * columns
    prefetch = order == "panels" and not widen and pixels > 1
    return ConvConfig(rows, columns, vectors, lanes, 1, order, block, widen, prefetch)


def _register_tile(shape: ConvShape, target: CpuTarget, panels: int) -> tuple[int, int, int]:
    """(rows, columns, vectors) with the least waste on this shape; larger tiles where several waste the same."""
    best: tuple[float, tuple[int, int, int]] | None = None
    # Of one pixel, each weight vector is used once, straight from memory: only chains of accumulators count.
    one = shape.out_images * shape.out_height * shape.out_width == 1
    # Three vectors by three pixels spill in 16 registers: half the speed of any neighbour (56x56 144 -> 24, avx2).
    spilling = 3 if target.registers == 16 and target.dot_depth == 2 else 0
    for vectors in range(1, 13 if one else 5):
        if panels % vectors or vectors == spilling:
            continue
        for rows in (1, 2):
            for columns in range(1, 29):
                if rows > 1 and (rows > shape.out_height or columns < shape.out_width):
                    continue
                config = ConvConfig(rows, columns, vectors, 8, 1, "rows", 1)
                try:
                    config.check(target)
                except ValueError:
                    continue
                covered = (
                    -(-shape.out_height // rows) * rows * (-(-shape.out_width // columns) * columns)
                )
                waste = covered / (shape.out_height * shape.out_width)
                # Instructions per product: the dot products, and the loads that feed them.
                per_dot = 2 if target.dot_depth == 2 else 1
                dots = rows * columns * vectors
                cost = waste * (per_dot * dots + 0.5 * (rows * columns + vectors) + 2.0) / dots
                if best is None or cost < best[0] - 1e-9:
                    best = (cost, (rows, columns, vectors))
    assert best is not None
    return best[1]


def schedule_qconv2d(
    func: tvm.tirx.PrimFunc,
    shape: ConvShape,
    packing: ConvPacking,
    form: ConvForm,
    target: CpuTarget,
    config: ConvConfig,
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qconv2d`'s function around the broadcast dot product.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the shape.
    """
    check_conv_config(shape, target, config)
    dot = intrin.broadcast_dot(target, config.lanes, form.widen)
    lanes, depth = dot.lanes, dot.depth
    sch = s_tir.Schedule(func)
    acc, dst = sch.get_sblock("acc"), sch.get_sblock("dst")
    sch.set_scope(acc, 0, "local")

    # dst[n, [z,] y, x, o]  ->  block, panel, tile, (row, column, vector, lane)
    *images, y, x, o = sch.get_loops(dst)
    yo, yi = sch.split(y, [None, config.rows])
    xo, xi = sch.split(x, [None, config.columns])
    po, pi, lane = sch.split(o, [None, config.vectors, lanes])
    if config.order == "rows":
        yb, yt = sch.split(yo, [None, config.block])
        sch.reorder(*images, yb, po, yt, xo, yi, xi, pi, lane)
    else:
        sch.reorder(po, *images, yo, xo, yi, xi, pi, lane)
    if holds_codes(shape, packing, form):
        for loop in (yi, xi, pi):
            sch.unroll(loop)
        _steps.vectorize_guarded(sch, lane, shape.out_channels)
        codes = sch.get_sblock("codes")
        sch.compute_at(codes, xo, preserve_unit_loops=True)
        *_, yi, xi, ci = sch.get_loops(codes)
        pi, lane = sch.split(ci, [None, lanes])
        whole = True
    else:
        whole = shape.out_channels % lanes == 0
    sch.compute_at(acc, xo, preserve_unit_loops=True)
    _vectorize_output(sch, whole, shape, form, yi, xi, pi, lane)

    # acc[n, y, x, o] over (r, c, j)  ->  tap, k, (unrolled row, column, vector), dot
    *_, ay, ax, ao, r, c, j = sch.get_loops(acc)
    ap, al = sch.split(ao, [None, lanes])
    steps = packing.padded_run // depth
    unroll = _steps.largest_divisor(steps, config.unroll)
    jo, ji, jk = sch.split(j, [None, unroll, depth])
    sch.reorder(r, c, jo, ji, ay, ax, ap, al, jk)

    # Parallel loops come before decompose_reduction, which refuses the dataflow otherwise.
    block = sch.fuse(*images, yb) if config.order == "rows" else po
    parallel = sch.parallel if shape.macs >= SERIAL_MACS else lambda loop: None
    parallel(block)
    if form.staged:
        _place_stage(sch, shape, config, block, parallel)
    if form.widen:
        widen = sch.get_sblock("widen")
        if config.order == "panels":
            sch.compute_at(widen, block, preserve_unit_loops=True)
            fused = sch.fuse(*sch.get_loops(widen)[1:])
        else:
            outer, *inner = sch.get_loops(widen)
            parallel(outer)
            fused = sch.fuse(*inner)
        _steps.vectorize_innermost(sch, fused, 16)
    _steps.initialise_registers(sch, acc, r)
    for loop in (ji, ay, ax, ap):
        sch.unroll(loop)
    sch.tensorize(al, dot.name)
    if config.order == "rows" or form.widen or not config.prefetch:
        return sch.mod["main"]
    if _steps.extent(sch, yo) * _steps.extent(sch, xo) == 1:
        return sch.mod["main"]
    stretch = _steps.largest_divisor(steps // unroll, 64)
    jo, _ = sch.split(jo, [None, stretch])
    roles = ("panel", "row", "column", "tap_row", "tap_column", "step")
    for role, loop in zip(roles, (block, yo, xo, r, c, jo), strict=True):
        mark_loop(sch, role, loop)
    return prefetch_weights(sch.mod["main"], "weight", config.vectors, stretch * unroll)


def check_conv_config(shape: ConvShape, target: CpuTarget, config: ConvConfig) -> None:
    """Refuse what spills, and what would leave predicates in the inner loop, which no instruction takes.

    Raises:
        ValueError: the configuration does not fit the target's registers or vectors, or does not divide the shape.
    """
    config.check(target)
    if config.lanes not in (8, target.lanes):
        raise ValueError(f"{config}: {target.level} has vectors of 8 or {target.lanes} lanes")
    packing = ConvPacking.of(shape, dot_layout(target, config.lanes))
    if packing.panels % config.vectors:
        raise ValueError(f"{config}: {config.vectors} vectors do not divide {packing.panels}")
    tile_rows = -(-shape.out_height // config.rows)
    if config.order == "rows" and tile_rows % config.block:
        raise ValueError(f"{config}: blocks of {config.block} do not divide {tile_rows} rows")


def _vectorize_output(sch, whole, shape, form, yi, xi, pi, lane) -> None:
    if form.residual and whole:
        # A long chain of operations for each vector, one after the other, would fill the CPU's scheduler with waiting
        # instructions. One wide vector over all panels interleaves them.
        sch.vectorize(sch.fuse(pi, lane))
        return
    for loop in (yi, xi, pi):
        sch.unroll(loop)
    if whole:
        sch.vectorize(lane)
    else:
        _steps.vectorize_guarded(sch, lane, shape.out_channels)


def _place_stage(sch, shape, config, block, parallel) -> None:
    """Stage the input of a row block inside it, or, under panels, the whole input once, in parallel, beforehand."""
    stage = sch.get_sblock("stage")
    if config.order == "rows":
        sch.compute_at(stage, block, preserve_unit_loops=True)
        *_, row = sch.get_loops(stage)
    else:
        *outer, row = sch.get_loops(stage)
        if shape.out_height == 1:
            # One long row: cut it at pixels.
            pixel, row = sch.split(row, [None, shape.in_channels])
            parallel(pixel)
        else:
            parallel(sch.fuse(*outer))
    if shape.in_channels % 16 == 0 or shape.in_channels >= 64:
        _steps.vectorize_innermost(sch, row, 64, uniform=shape.in_channels)
        return
    # Few channels: vectors run across pixels, and the middle of the row is split off from its border.
    outer, inner = sch.split(row, [None, 32])
    sch.vectorize(inner)
    sch.annotate(outer, "pragma_loop_partition_hint", 1)
