"""A schedule for any float function: every stage spread over threads, and vectorized where it has no reduction."""

import tvm
from tvm import s_tir

from lowgemm.schedules import _steps

_VECTOR = 16
_GRAIN = 4096


def schedule_float(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """Schedule each stage of `func` by itself.

    Stages that only compute elementwise: fused, vectorized, in parallel. Reductions: their output in parallel, the sum
    left to LLVM, which may not reorder it, so that results do not depend on the number of threads.
    """
    sch = s_tir.Schedule(func)
    root = sch.get_sblock("root")
    for block in sch.get_child_blocks(root):
        loops = sch.get_loops(block)
        kinds = [var.iter_type for var in sch.get(block).iter_vars]
        spatial = tvm.tirx.IterVar.DataPar
        if len(loops) != len(kinds) or not loops:
            continue
        count = next((i for i, kind in enumerate(kinds) if kind != spatial), len(kinds))
        if any(kind == spatial for kind in kinds[count:]) or count == 0:
            continue
        fused = sch.fuse(*loops[:count]) if count > 1 else loops[0]
        total = _steps.extent(sch, fused)
        if count < len(kinds):
            if total > 1:
                sch.parallel(fused)
            continue
        width = _steps.largest_divisor(total, _VECTOR)
        chunk = _steps.largest_divisor(total // width, max(1, _GRAIN // width))
        outer, _, inner = sch.split(fused, [None, chunk, width])
        if width > 1:
            sch.vectorize(inner)
        if total // width // chunk > 1:
            sch.parallel(outer)
    return sch.mod["main"]
