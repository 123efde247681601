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
        if count < len(kinds) and count > 1 and _runs_along(sch, block, count - 1):
            _vectorize_sums(sch, block, loops, count)
            continue
        fused = sch.fuse(*loops[:count]) if count > 1 else loops[0]
        total = _steps.extent(sch, fused)
        if count < len(kinds):
            if total > 1:
                sch.parallel(fused)
            continue
        width = _steps.vector_width(total, _VECTOR)
        chunk = _steps.largest_divisor(total // width, max(1, _GRAIN // width))
        outer, _, inner = sch.split(fused, [None, chunk, width])
        if width > 1:
            sch.vectorize(inner)
        if total // width // chunk > 1:
            sch.parallel(outer)
    return sch.mod["main"]


def _runs_along(sch: s_tir.Schedule, block, axis: int) -> bool:
    """Whether the block reads nothing at a stride along its `axis`: neighbours there, or the same element."""
    stmt = sch.get(block)
    var = stmt.iter_vars[axis].var
    moving = 0
    for read in stmt.reads:
        *outer, last = [each.min for each in read.region]
        if any(_uses(index, var) for index in outer):
            return False
        if _uses(last, var):
            if not last.same_as(var):
                return False
            moving += 1
    return moving > 0


def _uses(expr, var) -> bool:
    return any(used.same_as(var) for used in tvm.tirx.analysis.undefined_vars(expr))


def _vectorize_sums(sch: s_tir.Schedule, block, loops: list, count: int) -> None:
    """for .., j, k: sum  ->  for .. in parallel: for jo: for ji in vectors: zero; for k: for ji in vectors: sum

    Each sum keeps its order, and there are as many at a time as a vector has lanes.
    """
    *outer, column = loops[:count]
    width = _steps.vector_width(_steps.extent(sch, column), _VECTOR)
    column_outer, lane = sch.split(column, [None, width])
    sch.reorder(column_outer, *loops[count:], lane)
    fused = sch.fuse(*outer) if len(outer) > 1 else outer[0]
    if _steps.extent(sch, fused) > 1:
        sch.parallel(fused)
    if width > 1:
        sch.vectorize(lane)
    init = sch.decompose_reduction(block, loops[count])
    if width > 1:
        sch.vectorize(sch.get_loops(init)[-1])
