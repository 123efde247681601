"""The schedule of the matrix product with any number of rows.

[stage all rows]                            in the operand dtype
for panel of columns (parallel):
  for tile of rows:
    acc[rows, vectors] = 0                  registers
    for k:  acc += dot(broadcast operand group, weight vector)
    for row, vector:  dst = output stage(acc)

A panel of weights stays in the first cache while all tiles pass by; whoever calls with many rows calls in blocks whose
operands stay in the second.
"""

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvPacking
from lowgemm.schedules import _steps
from lowgemm.schedules._amx import schedule_tiles
from lowgemm.schedules._paired import sum_pairs
from lowgemm.targets import CpuTarget
from lowgemm.tiling import GemmConfig, TileConfig
from lowgemm.topi import GemmForm


def schedule_qgemm(
    func: tvm.tirx.PrimFunc,
    packing: ConvPacking,
    form: GemmForm,
    target: CpuTarget,
    config: GemmConfig | TileConfig,
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qgemm`'s function around the broadcast dot product, or around AMX's product of tiles.

    Raises:
        ValueError: the configuration does not fit the target's registers, or does not divide the columns.
    """
    if isinstance(config, TileConfig):
        return schedule_tiles(func, packing, form, config)
    config.check(target)
    if packing.panels % config.vectors:
        raise ValueError(f"{config}: {config.vectors} vectors do not divide {packing.panels}")
    dot = intrin.broadcast_dot(target, packing.layout.lanes, widened=False)
    lanes = dot.lanes
    sch = s_tir.Schedule(func)
    acc = sch.get_sblock("acc")
    # Where vectors stick out of the output, whole ones go to `codes`, and a plain copy takes what is wanted.
    whole = form.columns == packing.panels * lanes
    t, x, o = sch.get_loops(sch.get_sblock("dst" if whole else "codes"))
    po, pi, lane = sch.split(o, [None, config.vectors, lanes])
    sch.reorder(po, t, x, pi, lane)
    sch.compute_at(acc, t, preserve_unit_loops=True)
    if whole:
        _steps.vectorize_panels(sch, pi, lane)
    else:
        sch.unroll(pi)
        sch.vectorize(lane)
    sch.unroll(x)
    sums = _steps.order_sums(sch, acc, packing, dot, config.unroll)
    sch.parallel(po)
    if form.staged:
        _steps.vectorize_stage(sch)
    if form.dynamic:
        _steps.vectorize_ranges(sch, form.depth)
    if form.paired:
        return sum_pairs(sch, acc, sums, dot, target.registers, {"panel": po}, form.paired)
    _steps.sum_in_registers(sch, acc, sums, dot)
    return sch.mod["main"]
