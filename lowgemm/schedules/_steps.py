"""Schedule steps that several families share; each is one rewrite of the loop nest."""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

from tvm import s_tir, tirx

from lowgemm.intrin import Dot
from lowgemm.packing import ConvPacking
from lowgemm.tiling import parallel_loss as parallel_loss


@dataclass(frozen=True)
class Sums:
    """Loops around a register tile's dot products: over taps, over steps of a run, those to unroll, and over lanes."""

    taps: list[Any]
    steps: Any
    unrolled: list[Any]
    lane: Any


def extent(sch: s_tir.Schedule, loop) -> int:
    """The constant trip count of `loop`."""
    return int(sch.get(loop).extent)


def vectorize_innermost(sch: s_tir.Schedule, loop, width: int, uniform: int | None = None) -> None:
    """for i in n  ->  for io in n/v: for ii in vectorized(v)

    `v` divides `n` and `uniform` (the stride at which a guard in the body can change, so that no vector straddles it),
    and is `vector_width`'s, at most `width`.
    """
    n = extent(sch, loop)
    v = vector_width(gcd(n, uniform) if uniform else n, width)
    if v > 1:
        _, inner = sch.split(loop, [None, v])
        sch.vectorize(inner)


def vectorize_padded(sch: s_tir.Schedule, stage, row, channels: int) -> None:
    """for i in n  ->  for io in n/v: for ii in vectorized(v), where i runs over a padded row of `stage`, or a part."""
    if channels % 16 == 0 or channels >= 64:
        vectorize_innermost(sch, row, 64, uniform=channels)
        return
    # Few channels: vectors run across pixels, and the middle of the row is split off from its border. In a part, whose
    # place is not known, TVM then forgets where the part ends: so vectors divide it.
    n = extent(sch, row)
    whole = n == int(sch.get(stage).iter_vars[-1].dom.extent)
    _vectorize_inside(sch, row, 32 if whole else gcd(n, 32))


def vectorize_guarded(sch: s_tir.Schedule, loop, channels: int) -> None:
    """for i in n (guarded by `channels`)  ->  for io in unrolled(n/v): for ii in vectorized(v), no vector half in.

    A guarded loop must not be left to LLVM: its vectorizer makes a masked store of it, and for a mask of one byte
    LLVM 22 writes four.
    """
    v = gcd(extent(sch, loop), channels)
    outer, inner = sch.split(loop, [None, v])
    sch.unroll(outer)
    sch.vectorize(inner)


def largest_divisor(n: int, limit: int) -> int:
    """The largest divisor of `n` that is at most `limit`."""
    return max(d for d in range(1, min(n, limit) + 1) if n % d == 0)


def vector_width(n: int, limit: int) -> int:
    """How many of `n` elements a vector takes, at most `limit`, so that vectors divide them.

    A power of two from 8 on, or else the largest divisor: LLVM takes other widths apart, and 288 pixels of 88 channels
    are scaled in 16.5 us by vectors of 11, in 5.8 us by vectors of 8 (AVX2, Zen 3).
    """
    power = min(n & -n, 1 << (limit.bit_length() - 1))
    return power if power >= 8 else largest_divisor(n, limit)


def order_sums(sch: s_tir.Schedule, acc, packing: ConvPacking, dot: Dot, unroll: int) -> Sums:
    """for pixels, o, [taps,] j: acc += ..  ->  for [taps,] ko, ki, pixels, vectors, (lane, k): acc += ..

    The block lies in its tile already. `unroll` is what the trip count of ki is at most.
    """
    loops = sch.get_loops(acc)
    reduced = sum(axis.iter_type == tirx.IterVar.CommReduce for axis in sch.get(acc).iter_vars)
    *taps, j = loops[-reduced:]
    *_, row, column, o = loops[:-reduced]
    vector, lane = sch.split(o, [None, dot.lanes])
    depth = dot.summed * dot.depth
    unroll = largest_divisor(extent(sch, j) // depth, unroll)
    outer, inner, k = sch.split(j, [None, unroll, depth])
    sch.reorder(*taps, outer, inner, row, column, vector, lane, k)
    return Sums(taps, outer, [inner, row, column, vector], lane)


def sum_in_registers(sch: s_tir.Schedule, acc, sums: Sums, dot: Dot) -> None:
    """Zero the accumulators before their reduction, one vector store each, unroll the tile, and tensorize its lanes."""
    initialise_registers(sch, acc, [*sums.taps, sums.steps][0])
    for loop in sums.unrolled:
        sch.unroll(loop)
    sch.tensorize(sums.lane, dot.name)


def initialise_registers(sch: s_tir.Schedule, acc, at) -> None:
    """Take the zeroing of the accumulators out of the reduction, one vector store each, fully unrolled."""
    init = sch.decompose_reduction(acc, at)
    *outer, lane = sch.get_loops(init)[-4:]
    sch.vectorize(lane)
    for loop in outer:
        sch.unroll(loop)


def vectorize_panels(sch: s_tir.Schedule, panels, lane) -> None:
    """for p in n: for lane in m  ->  for po in unrolled(n/v): for i in vectorized(v*m), v the largest power of two.

    What becomes of an accumulator is a long chain of operations, each waiting for the one before: those of several
    vectors stand between each other's, and narrow to whole vectors of bytes.
    """
    n = extent(sch, panels)
    outer, inner = sch.split(panels, [None, n & -n])
    sch.unroll(outer)
    sch.vectorize(sch.fuse(inner, lane))


def vectorize_stage(sch: s_tir.Schedule) -> None:
    """for k in n: stage[.., k] = ..  ->  for ko in n/32: for ki in vectorized(32), apart from where the data ends."""
    *_, k = sch.get_loops(sch.get_sblock("stage"))
    _vectorize_inside(sch, k, 32)


def _vectorize_inside(sch: s_tir.Schedule, loop, width: int) -> None:
    """for i in n  ->  for io in n/v: for ii in vectorized(v), vectors without a guard apart from those with one."""
    outer, inner = sch.split(loop, [None, width])
    sch.vectorize(inner)
    sch.annotate(outer, "pragma_loop_partition_hint", 1)


def parallel_from(sch: s_tir.Schedule, work: int, least: int) -> Callable[[Any], None]:
    """What makes a loop of a kernel parallel, if its `work` is worth threads: `least` at least."""
    return sch.parallel if work >= least else lambda loop: None


def store_tile(sch: s_tir.Schedule, sums, at, tile: tuple, channels: int, held: bool) -> None:
    """Compute the block `sums` at the loop `at`, and store what becomes of it from inside.

    `tile` are the loops of `dst` inside `at`: row, column, vector and lane. `held` says that codes have a block of
    their own, `codes`, of whole vectors. Several of these become codes at once.
    """
    y, x, vector, lane = tile
    lanes = extent(sch, lane)
    whole = held or channels % lanes == 0
    if held:
        for loop in (y, x, vector):
            sch.unroll(loop)
        vectorize_guarded(sch, lane, channels)
        codes = sch.get_sblock("codes")
        sch.compute_at(codes, at, preserve_unit_loops=True)
        *_, y, x, column = sch.get_loops(codes)
        vector, lane = sch.split(column, [None, lanes])
    sch.compute_at(sums, at, preserve_unit_loops=True)
    for loop in (y, x):
        sch.unroll(loop)
    if whole:
        vectorize_panels(sch, vector, lane)
    else:
        sch.unroll(vector)
        # No vector half in the output.
        vectorize_guarded(sch, lane, channels)


def vectorize_ranges(sch: s_tir.Schedule, depth: int) -> None:
    """The least and the greatest element of each row of `depth`, a vector of candidates at a time."""
    for name in ("low_parts", "high_parts") if depth >= 16 else ():
        block = sch.get_sblock(name)
        *_, lane, k = sch.get_loops(block)
        sch.reorder(k, lane)
        sch.vectorize(lane)
        sch.vectorize(sch.get_loops(sch.decompose_reduction(block, k))[-1])
