"""Schedule steps that several families share; each is one rewrite of the loop nest."""

from math import gcd

from tvm import s_tir

from lowgemm.tiling import parallel_loss as parallel_loss


def extent(sch: s_tir.Schedule, loop) -> int:
    """The constant trip count of `loop`."""
    return int(sch.get(loop).extent)


def vectorize_innermost(sch: s_tir.Schedule, loop, width: int, uniform: int | None = None) -> None:
    """for i in n  ->  for io in n/v: for ii in vectorized(v)

    `v` divides `n` and `uniform` (the stride at which a guard in the body can change, so that no vector straddles it),
    and is at most `width`.
    """
    n = extent(sch, loop)
    step = gcd(n, uniform) if uniform else n
    v = max(d for d in range(1, min(width, step) + 1) if step % d == 0)
    if v > 1:
        _, inner = sch.split(loop, [None, v])
        sch.vectorize(inner)


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


def initialise_registers(sch: s_tir.Schedule, acc, at) -> None:
    """Take the zeroing of the accumulators out of the reduction, one vector store each, fully unrolled."""
    init = sch.decompose_reduction(acc, at)
    *outer, lane = sch.get_loops(init)[-4:]
    sch.vectorize(lane)
    for loop in outer:
        sch.unroll(loop)


def vectorize_stage(sch: s_tir.Schedule) -> None:
    """for k in n: stage[.., k] = ..  ->  for ko in n/32: for ki in vectorized(32), apart from where the data ends."""
    *_, k = sch.get_loops(sch.get_sblock("stage"))
    outer, inner = sch.split(k, [None, 32])
    sch.vectorize(inner)
    sch.annotate(outer, "pragma_loop_partition_hint", 1)


def vectorize_ranges(sch: s_tir.Schedule, depth: int) -> None:
    """The least and the greatest element of each row of `depth`, a vector of candidates at a time."""
    for name in ("low_parts", "high_parts") if depth >= 16 else ():
        block = sch.get_sblock(name)
        *_, lane, k = sch.get_loops(block)
        sch.reorder(k, lane)
        sch.vectorize(lane)
        sch.vectorize(sch.get_loops(sch.decompose_reduction(block, k))[-1])
