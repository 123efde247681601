"""The schedule of depthwise convolution: lanes are channels, the reduction runs over interleaved rows and columns.

for rows, blocks of channels (parallel):
  copy the input with its border
  for block of channels:
    interleave d rows of it, or do so for each y
    for y, x tile:
      acc[phases, columns, 4 vectors] = 0
      for row group, column tap:  acc += dot(interleaved vector, weight vector)
      requantize four vectors to one, in order
"""

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvShape, DepthwisePacking
from lowgemm.schedules import _steps
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    SERIAL_MACS,
    DepthwiseConfig,
    blocks_together,
    check_depthwise_config,
)
from lowgemm.tiling import default_depthwise_config as default_depthwise_config
from lowgemm.tiling import depthwise_packing as depthwise_packing
from lowgemm.tiling import interleaving as interleaving
from lowgemm.topi import DepthwiseForm


def schedule_qdepthwise2d(
    func: tvm.tirx.PrimFunc,
    shape: ConvShape,
    packing: DepthwisePacking,
    form: DepthwiseForm,
    target: CpuTarget,
    config: DepthwiseConfig,
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qdepthwise2d`'s function around the lanewise dot product.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the shape.
    """
    check_depthwise_config(shape, target, config)
    phases = packing.phases
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
    yb, yo, yi = sch.split(y, [None, config.block_rows // phases, phases])
    xo, xi = sch.split(x, [None, config.columns])
    sch.reorder(*images, yb, b, yo, xo, *([] if direct else [segment]), yi, xi, *inner)
    bo, b = sch.split(b, [None, blocks_together(shape, packing)])
    block = sch.fuse(*images, yb, bo)
    if shape.macs >= SERIAL_MACS // 4:  # a quarter of the rate of dense products
        sch.parallel(block)
    if not direct:
        _steps.vectorize_guarded(sch, inner[0], shape.out_channels)
        sch.compute_at(packed, xo, preserve_unit_loops=True)
        *_, yi, xi, _, k, j, q = sch.get_loops(packed)
        inner = [k, j, q]
    sch.unroll(yi)
    sch.unroll(xi)
    values = sch.get_sblock("values")
    sch.compute_at(values, xi, preserve_unit_loops=True)

    # Everything finds its place before a tensorized block hides what it reads.
    sch.compute_at(acc, xo, preserve_unit_loops=True)
    own = form.interleaved == "own"
    sch.compute_at(stage, yo if own else b, preserve_unit_loops=True)
    padded = sch.get_sblock("padded")
    sch.compute_at(padded, block, preserve_unit_loops=True)
    _vectorize_padded(sch, padded, shape, packing)
    if dot.rhs != "int8":
        widen = sch.get_sblock("widen")
        _steps.vectorize_innermost(sch, sch.fuse(*sch.get_loops(widen)), 16)

    rows = depth if form.interleaved == "aligned" else min(depth, shape.kernel[0])
    interleave = intrin.interleave_rows(rows, shape.dilations[0], depth, packing.chunks)
    extents = [_steps.extent(sch, loop) for loop in sch.get_loops(stage)[-6:]]
    sch.tensorize(sch.get_loops(stage)[-3], interleave)
    if own:
        _spread_rows(sch, sch.get_sblock("stage_o"), _PAGE // depth, *extents)
    *_, j, k, q = sch.get_loops(values)
    sch.unroll(j)
    sch.vectorize(sch.fuse(k, q))
    if form.output.eight_bit:
        sch.tensorize(inner[0], intrin.narrow_block(form.output.dtype, packing.chunks))
    else:
        k, j, q = inner
        sch.unroll(k)
        sch.unroll(j)
        sch.vectorize(q)
    *_, ay, ax, _, aj, ak, aq, r, c, i = sch.get_loops(acc)
    sch.reorder(aj, r, ay, ax, c, ak, aq, i)
    init = sch.decompose_reduction(acc, aj)
    *outer, k, q = sch.get_loops(init)[-6:]
    for loop in outer:
        sch.unroll(loop)
    sch.vectorize(sch.fuse(k, q))
    for loop in (aj, r, ay, ax, c):
        sch.unroll(loop)
    sch.tensorize(ak, dot.name)
    return sch.mod["main"]


# Beyond so many interleaved rows at the same place of a page, some leave the first cache (8 ways).
_MOST_ROWS_ALIKE = 4
_PAGE = 4096


def _spread_rows(sch, stage, page, groups, x, b, j, k, q) -> None:
    """Keep the interleaved rows of one output row apart in the cache: three sixteenths of a page (of so many words)
    beyond a multiple of a quarter."""
    if groups > _MOST_ROWS_ALIKE and x * b * j * k * q % (page // 4) == 0:
        axis = len(sch.get(stage).iter_vars) - 6
        sch.storage_align(stage, 0, axis, page // 4, 3 * page // 16)


def _vectorize_padded(sch, padded, shape, packing) -> None:
    loops = sch.get_loops(padded)
    sch.annotate(loops[-3], "pragma_loop_partition_hint", 1)
    if shape.in_channels != shape.out_channels:
        return  # a gather
    width = packing.channels if packing.segments == 1 else 16
    # No vector straddles what channels there are, if they do not fill a block.
    guard = shape.out_channels if shape.out_channels < packing.channels else None
    _steps.vectorize_innermost(sch, sch.get_loops(padded)[-1], width, guard)
