"""The schedule of operators without reuse: fuse all loops, vectorize the innermost, spread the rest over threads."""

import tvm
from tvm import s_tir

from lowgemm.schedules import _steps


def schedule_elementwise(
    func: tvm.tirx.PrimFunc, width: int, uniform: int | None = None, grain: int = 8192
) -> tvm.tirx.PrimFunc:
    """Schedule the block `dst`: vectors of at most `width` elements inside, blocks of about `grain` in parallel.

    `uniform` is the length of the innermost axis over which the body's indices are contiguous (the whole tensor when
    not given).
    """
    sch = s_tir.Schedule(func)
    dst = sch.get_sblock("dst")
    loops = sch.get_loops(dst)
    spatial = [
        loop
        for loop, var in zip(loops, sch.get(dst).iter_vars, strict=True)
        if var.iter_type == tvm.tirx.IterVar.DataPar
    ]
    fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    total = _steps.extent(sch, fused)
    run = uniform or total
    v = _steps.largest_divisor(run, width)
    chunk = _steps.largest_divisor(total // v, max(1, grain // v))
    outer, middle, inner = sch.split(fused, [None, chunk, v])
    if len(loops) == len(spatial) and v > 1:
        sch.vectorize(inner)
    if total // v // chunk > 1:
        sch.parallel(outer)
    del middle
    return sch.mod["main"]
