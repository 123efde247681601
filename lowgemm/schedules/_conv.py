"""The schedule of the dot-product convolution and GEMM family, one body for every level.

for block (parallel):                 a block of rows, or a block of weight panels
  [stage the block's input]
  for panel, tile:
    acc[rows, columns, vectors] = 0   registers
    for tap, k:  acc += dot(broadcast input group, weight vector)
    for row, column, vector:  dst = epilogue(acc)
"""

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvPacking, ConvShape
from lowgemm.schedules import _steps
from lowgemm.schedules._paired import sum_pairs
from lowgemm.schedules._prefetch import prefetch_rows, prefetch_weights
from lowgemm.targets import CpuTarget
from lowgemm.tiling import FEW_PIXELS as FEW_PIXELS
from lowgemm.tiling import SERIAL_MACS, ConvConfig, check_conv_config, fetches_rows
from lowgemm.tiling import default_conv_config as default_conv_config
from lowgemm.tiling import needs_stage as needs_stage
from lowgemm.topi import ConvForm, holds_codes


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
    lanes = dot.lanes
    sch = s_tir.Schedule(func)
    acc, dst = sch.get_sblock("acc"), sch.get_sblock("dst")

    # dst[n, [z,] y, x, o]  ->  block, panel, tile, (row, column, vector, lane)
    *images, y, x, o = sch.get_loops(dst)
    yo, yi = sch.split(y, [None, config.rows])
    xo, xi = sch.split(x, [None, config.columns])
    po, pi, lane = sch.split(o, [None, config.vectors, lanes])
    outer, tiles = [*images], {"panel": po, "column": xo}
    if config.order == "rows" and _steps.extent(sch, yo) > 1:
        yb, yt = sch.split(yo, [None, config.block])
        outer += [yb]
        tiles |= {"row": yt}
        sch.reorder(*outer, po, yt, xo, yi, xi, pi, lane)
    elif config.order == "rows":
        xb, xo = sch.split(xo, [None, config.block])
        tiles |= {"column": xo}
        outer += [yo, xb]
        sch.reorder(*outer, po, xo, yi, xi, pi, lane)
    else:
        sch.reorder(po, *images, yo, xo, yi, xi, pi, lane)
    held = holds_codes(shape, packing, form)
    _steps.store_tile(sch, acc, xo, (yi, xi, pi, lane), shape.out_channels, held)

    sums = _steps.order_sums(sch, acc, packing, dot, config.unroll)

    # Parallel loops come before decompose_reduction, which refuses the dataflow otherwise.
    block = sch.fuse(*outer) if config.order == "rows" else po
    parallel = _steps.parallel_from(sch, shape.macs, SERIAL_MACS)
    parallel(block)
    if form.output.weight_zero:
        _place_sums(sch, config, block, parallel)
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
    fetch = config.order == "panels" and config.prefetch and not form.widen
    fetch = fetch and _steps.extent(sch, yo) * _steps.extent(sch, xo) > 1
    loops = {"panel": block, "row": yo, "column": xo} if config.order == "panels" else {"panel": po}
    if form.paired:
        return sum_pairs(sch, acc, sums, dot, target.registers, loops, form.paired, fetch)
    _steps.sum_in_registers(sch, acc, sums, dot)
    if fetches_rows(shape, packing, config, form.staged):
        return prefetch_rows(sch, sums, block, tiles)
    if not fetch:
        return sch.mod["main"]
    return prefetch_weights(sch, sums, dot, config.vectors, loops)


def _place_sums(sch, config, block, parallel) -> None:
    """Sum windows where their block needs them, or, under panels, all of them beforehand."""
    for name in ("window_sums", "channel_sums"):
        sums = sch.get_sblock(name)
        if config.order == "rows":
            sch.compute_at(sums, block, preserve_unit_loops=True)
        else:
            reduced = 2 if name == "window_sums" else 1
            parallel(sch.fuse(*sch.get_loops(sums)[: -reduced - 1]))


def _place_stage(sch, shape, config, block, parallel) -> None:
    """Stage the input of a row block inside it, or, under panels, the whole input once, in parallel, beforehand."""
    stage = sch.get_sblock("stage")
    if config.order == "rows":
        sch.compute_at(stage, block, preserve_unit_loops=True)
        *_, row = sch.get_loops(stage)
    else:
        *outer, row = sch.get_loops(stage)
        if shape.grid[0] == 1:
            # One long row: cut it at pixels.
            pixel, row = sch.split(row, [None, shape.in_channels])
            parallel(pixel)
        else:
            parallel(sch.fuse(*outer))
    if shape.joined:
        # Where pixels lie in an image changes from one to the next: no loop is cut there.
        _steps.vectorize_innermost(sch, row, 64, uniform=shape.in_channels)
    else:
        _steps.vectorize_padded(sch, stage, row, shape.in_channels)
