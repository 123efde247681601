"""The schedule of operators without reuse: fuse all loops, vectorize the innermost, spread the rest over threads."""

import math

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.schedules import _steps

# Elements that are worth a thread, and iterations that are enough for all threads.
_GRAIN = 16384
_TASKS = 8
# Pooling fewer elements takes so little time that sharing them costs more than it saves: 2x96x200 codes to one pixel
# take 1.5 us on one thread and 2.6 us on two (Zen 3).
_POOL_SERIAL = 65536


def schedule_elementwise(
    func: tvm.tirx.PrimFunc, width: int, uniform: int | None = None, grain: int = _GRAIN
) -> tvm.tirx.PrimFunc:
    """Schedule the block `dst`: vectors of at most `width` elements inside, blocks of about `grain` in parallel.

    `uniform` is the length of the innermost axis over which the body's indices are contiguous (the whole tensor when
    not given).
    """
    sch = s_tir.Schedule(func)
    dst = sch.get_sblock("dst")
    loops = sch.get_loops(dst)
    if not loops:  # a scalar
        return func
    spatial = [
        loop
        for loop, var in zip(loops, sch.get(dst).iter_vars, strict=True)
        if var.iter_type == tvm.tirx.IterVar.DataPar
    ]
    fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    total = _steps.extent(sch, fused)
    run = uniform or total
    v = _steps.vector_width(run, width)
    chunk = _steps.largest_divisor(total // v, max(1, grain // v))
    outer, middle, inner = sch.split(fused, [None, chunk, v])
    if len(loops) == len(spatial) and v > 1:
        sch.vectorize(inner)
    if total // v // chunk > 1:
        sch.parallel(outer)
    del middle
    return sch.mod["main"]


def schedule_move(func: tvm.tirx.PrimFunc, in_runs: bool) -> tvm.tirx.PrimFunc:
    """Schedule `topi.move`: outer loops in parallel, runs of the innermost, where there are any, in vectors."""
    sch = s_tir.Schedule(func)
    loops = sch.get_loops(sch.get_sblock("dst"))
    extents = [_steps.extent(sch, loop) for loop in loops]
    if math.prod(extents) > _GRAIN and len(loops) > 1:
        outer = loops[:-1] if len(loops) > 2 and extents[0] < _TASKS else loops[:1]
        sch.parallel(sch.fuse(*outer[:2]) if len(outer) > 1 else outer[0])
    run = extents[-1]
    width = _steps.largest_divisor(run, 32)
    # A long run that no vector divides is left to LLVM, which makes a call of memcpy out of it.
    if in_runs and (run < 32 or width >= 16):
        _steps.vectorize_innermost(sch, loops[-1], 32)
    return sch.mod["main"]


def schedule_resize(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qresize`: rows in parallel, channels in vectors, a pixel's index looked up once."""
    sch = s_tir.Schedule(func)
    n, y, _, c = sch.get_loops(sch.get_sblock("dst"))
    sch.parallel(sch.fuse(n, y))
    _steps.vectorize_innermost(sch, c, 32)
    return sch.mod["main"]


def schedule_scale(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qmul` of one factor a channel.

    for p, c  ->  for p in blocks, in parallel: the factors; for p in a block: for c in n/v: for c in vectors of v

    So memory is read in the order in which it lies. Going over a block for each vector of channels took a sixth longer.
    """
    sch = s_tir.Schedule(func)
    pixel, channel = sch.get_loops(sch.get_sblock("dst"))
    pixels, channels = (_steps.extent(sch, loop) for loop in (pixel, channel))
    block = _steps.largest_divisor(pixels, max(1, _GRAIN // channels))
    outer, _ = sch.split(pixel, [None, block])
    if pixels > block:
        sch.parallel(outer)
    factors = sch.get_sblock("factors")
    sch.compute_at(factors, outer, preserve_unit_loops=True)
    for loop in (channel, sch.get_loops(factors)[-1]):
        width = _steps.vector_width(channels, 16)
        _, lane = sch.split(loop, [None, width])
        if width > 1:
            sch.vectorize(lane)
    return sch.mod["main"]


def schedule_copy(func: tvm.tirx.PrimFunc, run: int) -> tvm.tirx.PrimFunc:
    """Schedule a copy of rows of `run` elements: rows in parallel, elements in vectors."""
    sch = s_tir.Schedule(func)
    row, element = sch.get_loops(sch.get_sblock("dst"))
    rows = _steps.extent(sch, row)
    if rows * run > _GRAIN:
        sch.parallel(row)
    _steps.vectorize_innermost(sch, element, 32)
    return sch.mod["main"]


def schedule_quantize(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """Schedule `topi.quantize`: flat, or row by row with the channels interleaved behind the arithmetic."""
    sch = s_tir.Schedule(func)
    dst = sch.get_sblock("dst")
    if len(sch.get_loops(dst)) != 4 or not _has_block(sch, "rows"):
        return schedule_elementwise(func, 16)
    n, h, w, c = sch.get_loops(dst)
    block = sch.fuse(n, h)
    sch.parallel(block)
    rows = sch.get_sblock("rows")
    sch.compute_at(rows, block, preserve_unit_loops=True)
    *_, column = sch.get_loops(rows)
    _steps.vectorize_innermost(sch, column, 16)
    channels = _steps.extent(sch, c)
    if channels <= 4 and _steps.extent(sch, w) % 16 == 0:
        _, pixels = sch.split(w, [None, 16])
        dtype = str(sch.get(dst).writes[0].source.ty.dtype)
        sch.tensorize(pixels, intrin.interleave_channels(channels, dtype))
    elif channels <= 4:
        sch.unroll(c)
    return sch.mod["main"]


def schedule_pool(func: tvm.tirx.PrimFunc, channels: int) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qpool`: pixels in parallel, the window inside, vectors of channels innermost."""
    sch = s_tir.Schedule(func)
    dst = sch.get_sblock("dst")
    width = _steps.vector_width(channels, 32)
    apart = _has_block(sch, "acc")
    acc = sch.get_sblock("acc") if apart else dst
    elements = math.prod(_steps.extent(sch, loop) for loop in sch.get_loops(acc))
    parallel = _steps.parallel_from(sch, elements, _POOL_SERIAL)
    if apart:
        n, y, x, c = sch.get_loops(dst)
        co, ci = sch.split(c, [None, width])
        sch.compute_at(acc, co, preserve_unit_loops=True)
        parallel(sch.fuse(n, y, x, co))
        if width > 1:
            sch.vectorize(ci)
    else:
        n, y, x, c, _, _ = sch.get_loops(dst)
        co, _ = sch.split(c, [None, width])
        parallel(sch.fuse(n, y, x, co))
    *_, lane, ry, rx = sch.get_loops(acc)
    sch.reorder(ry, rx, lane)
    if width > 1:
        # Before decompose_reduction: its parts are no complete blocks, which vectorize asks for.
        sch.vectorize(lane)
    init = sch.decompose_reduction(acc, ry)
    if width > 1:
        sch.vectorize(sch.get_loops(init)[-1])
    return sch.mod["main"]


def _has_block(sch: s_tir.Schedule, name: str) -> bool:
    root = sch.get_sblock("root")
    return any(sch.get(child).name_hint == name for child in sch.get_child_blocks(root))
