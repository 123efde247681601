"""The schedule of the matrix product in 16-bit accumulators.

[stage all rows]  [sparse part]
for panel of columns (parallel):
  for tile of rows:
    for stretch of 256 of the depth:
      narrow[rows, vectors] = 0             registers
      for k:  narrow = saturating step(broadcast pair, weight vector)
      acc[rows, vectors] += narrow          in 32 bits
    last[rows, vectors] = the same for what is left of the depth
    for row, vector:  dst = output stage(acc + last + sparse)
"""

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvPacking
from lowgemm.schedules import _steps
from lowgemm.tiling import GemmConfig
from lowgemm.topi import Acc16Form


def schedule_qgemm_acc16(
    func: tvm.tirx.PrimFunc, packing: ConvPacking, form: Acc16Form, config: GemmConfig
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qgemm_acc16`'s function around the saturating dot product.

    Raises:
        ValueError: the configuration does not divide the columns.
    """
    if packing.panels % config.vectors:
        raise ValueError(f"{config}: {config.vectors} vectors do not divide {packing.panels}")
    lanes = packing.layout.lanes
    dot = intrin.saturating_dot(lanes)
    sch = s_tir.Schedule(func)
    names = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    whole = "codes" not in names
    t, x, o = sch.get_loops(sch.get_sblock("dst" if whole else "codes"))
    po, pi, lane = sch.split(o, [None, config.vectors, lanes])
    sch.reorder(po, t, x, pi, lane)
    # What else is a term of the sum, and the innermost loops of what is accumulated in 16 bits.
    acc = sch.get_sblock("acc") if "acc" in names else None
    stretch = None
    narrow = []
    if acc is not None:
        sch.compute_at(acc, t, preserve_unit_loops=True)
        *_, ax, ao, stretch = sch.get_loops(acc)
        ap, al = sch.split(ao, [None, lanes])
        sch.reorder(stretch, ax, ap, al)
        narrow.append(sch.get_sblock("narrow"))
        sch.compute_at(narrow[0], stretch, preserve_unit_loops=True)
        for loop in (ax, ap):
            sch.unroll(loop)
        sch.vectorize(al)
    if "last" in names:
        narrow.append(sch.get_sblock("last"))
        sch.compute_at(narrow[-1], t, preserve_unit_loops=True)
    inner = []
    for block in narrow:
        *_, nx, no, j = sch.get_loops(block)
        np, nl = sch.split(no, [None, lanes])
        sch.reorder(j, nx, np, nl)
        inner.append((block, j, nx, np, nl))
    sch.unroll(pi)
    sch.vectorize(lane)
    sch.unroll(x)
    sch.parallel(po)
    if form.staged:
        _steps.vectorize_stage(sch)
    if acc is not None:
        _steps.initialise_registers(sch, acc, stretch)
    for block, j, nx, np, nl in inner:
        _steps.initialise_registers(sch, block, j)
        sch.unroll(nx)
        sch.unroll(np)
        sch.tensorize(nl, dot)
    return sch.mod["main"]
