"""The schedule of the Winograd convolution.

for block (parallel):                     a block of rows of tiles, or a block of weight panels
  stage the block's input, and transform it: 16 or 36 matrices of tiles by channels
  for panels:
    for parts of the channels:            one, unless filters are transformed here
      transform the part's filters
      for matrices, vectors, tiles:
        acc[tiles, vectors] = 0           registers
        for k:  acc += dot(broadcast pair of channels, weight vector)
        products += acc
    for tile, vectors:
      sums[2, 2, vectors] or [4, 4, vectors] = the products transformed
      for row, column, vector:  dst = epilogue(sums)
"""

from math import gcd
from typing import Any

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvShape, WinogradPacking
from lowgemm.schedules import _steps
from lowgemm.schedules._prefetch import prefetch_filters, prefetch_weights
from lowgemm.targets import CpuTarget
from lowgemm.tiling import SERIAL_MACS, WinogradConfig, check_winograd_config
from lowgemm.topi import WinogradForm


def schedule_qwinograd2d(
    func: tvm.tirx.PrimFunc,
    shape: ConvShape,
    packing: WinogradPacking,
    form: WinogradForm,
    target: CpuTarget,
    config: WinogradConfig,
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qwinograd2d`'s function around the broadcast dot product.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the shape.
    """
    check_winograd_config(shape, target, config, packing.size)
    dot = intrin.broadcast_dot(target.wide, packing.layout.lanes)
    lanes = dot.lanes
    sch = s_tir.Schedule(func)
    names = {sch.get(each).name_hint for each in sch.get_child_blocks(sch.get_sblock("root"))}
    dst = sch.get_sblock("dst")

    n, y, x, o = sch.get_loops(dst)
    yt, yi = sch.split(y, [None, packing.size])
    yb, yt = sch.split(yt, [None, form.rows])
    xo, xi = sch.split(x, [None, packing.size])
    wide = gcd(config.panels, 2)
    pb, po, pi, lane = sch.split(o, [None, config.panels // wide, wide, lanes])
    outer = [n, yb, pb] if config.order == "rows" else [pb, n, yb]
    sch.reorder(*outer, yt, xo, po, yi, xi, pi, lane)
    sums = sch.get_sblock("sums")
    held = "codes" in names
    _steps.store_tile(sch, sums, po, (yi, xi, pi, lane), shape.out_channels, held)
    _order_sums(sch, sums, lanes)

    products = sch.get_sblock("products")
    sch.compute_at(products, outer[-1], preserve_unit_loops=True)
    *_, r, c, g, u, o = sch.get_loops(products)[: -1 if packing.late else None]
    p, pi, lane = sch.split(o, [None, config.vectors, lanes])
    sch.reorder(r, c, p, g, u, pi, lane)
    if packing.late:
        part = sch.get_loops(products)[-1]
        sch.reorder(part, r, c, p, g, u, pi, lane)
    acc = sch.get_sblock("acc")
    sch.compute_at(acc, g, preserve_unit_loops=True)
    for loop in (u, pi):
        sch.unroll(loop)
    sch.vectorize(lane)
    steps = _steps.order_sums(sch, acc, packing, dot, config.unroll)

    _part_taps(sch, "moved", 4, 2)
    _part_taps(sch, "products", 3, 4)
    if packing.late:
        _part_taps(sch, "filters", 2, 2)
    parallel = _steps.parallel_from(sch, shape.macs, SERIAL_MACS)
    moved, stage = sch.get_sblock("moved"), sch.get_sblock("stage")
    if config.order == "rows":
        sch.compute_at(moved, yb, preserve_unit_loops=True)
        _order_moved(sch, moved)
        sch.compute_at(stage, yb, preserve_unit_loops=True)
        parallel(sch.fuse(n, yb))
        *_, row = sch.get_loops(stage)
    else:
        parallel(_order_moved(sch, moved))
        parallel(pb)
        *rows, row = sch.get_loops(stage)
        parallel(sch.fuse(*rows))
    if packing.late:
        fetched = {"block": pb, "part": part, **_order_filters(sch, part)}
        init = sch.decompose_reduction(products, part)
        sch.vectorize(sch.get_loops(init)[-1])
    _steps.vectorize_padded(sch, stage, row, shape.in_channels)
    _steps.sum_in_registers(sch, acc, steps, dot)
    if not config.prefetch:
        return sch.mod["main"]
    if packing.late:
        return prefetch_filters(sch, fetched)
    loops = {"block": pb, "panel": p, "row": g, "tap_row": r, "tap_column": c}
    # A line of memory at a time.
    return prefetch_weights(sch, steps, dot, config.vectors, loops, 64 // (4 * lanes))


def _part_taps(sch: s_tir.Schedule, name: str, axis: int, size: int) -> None:
    """Let the matrices that the block `name` holds, of elements of `size` bytes, lie an odd number of lines apart.

    A transform reads or writes a vector of each. A power of two apart, these would not stay in the first cache.
    """
    line = 64 // size
    sch.storage_align(sch.get_sblock(name), 0, axis, 2 * line, line)


def _order_sums(sch: s_tir.Schedule, sums, lanes: int) -> None:
    """Transform the products of one vector of outputs after the other, all of a tile at once."""
    *_, y, x, o = sch.get_loops(sums)
    panel, lane = sch.split(o, [None, lanes])
    sch.reorder(panel, y, x, lane)
    halves = sch.get_sblock("half_sums")
    sch.compute_at(halves, panel, preserve_unit_loops=True)
    *_, hy, _, c, half_lane = sch.get_loops(halves)
    for loop in (panel, y, x, hy, c):
        sch.unroll(loop)
    sch.vectorize(lane)
    sch.vectorize(half_lane)


def _order_filters(sch: s_tir.Schedule, part) -> dict[str, Any]:
    """Transform the filters of a part of the channels, all taps of a vector of them at once.

    Returns the loops over panels and over steps of the run.
    """
    filters = sch.get_sblock("filters")
    sch.compute_at(filters, part, preserve_unit_loops=True)
    *_, p, r, c, k, o, d = sch.get_loops(filters)
    sch.reorder(p, k, r, c, o, d)
    half = sch.get_sblock("half_filters")
    sch.compute_at(half, k, preserve_unit_loops=True)
    *_, hr, hx, _, ho, hd = sch.get_loops(half)
    for loop in (r, c, hr, hx):
        sch.unroll(loop)
    sch.vectorize(sch.fuse(o, d))
    sch.vectorize(sch.fuse(ho, hd))
    return {"panel": p, "step": k}


def _order_moved(sch: s_tir.Schedule, moved):
    """Transform a vector of channels of one tile after the other, all results of it at once.

    Returns the loop over tiles.
    """
    *outer, h, r, c, g, u, j = sch.get_loops(moved)
    width = _steps.vector_width(_steps.extent(sch, j), 16)
    jo, ji = sch.split(j, [None, width])
    sch.reorder(g, u, h, jo, r, c, ji)
    half = sch.get_sblock("half")
    sch.compute_at(half, jo, preserve_unit_loops=True)
    *_, hr, hx, hj = sch.get_loops(half)
    for loop in (r, c, hr, hx):
        sch.unroll(loop)
    sch.vectorize(ji)
    sch.vectorize(hj)
    return sch.fuse(*outer[-2:], g)
