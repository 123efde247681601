"""Fetching what is used later: the next panel of weights, or the image and the outputs of later tiles."""

from math import gcd, prod
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.script.ir_builder import tirx as T

from lowgemm.intrin import Dot
from lowgemm.schedules import _steps
from lowgemm.schedules._marked import mark_loops, replace_steps
from lowgemm.schedules._steps import Sums
from lowgemm.statements import argument, with_loop_body

# For reading, into the second cache (x86's prefetcht1): the first is full of what is used now. Data, not code.
READING = (0, 2, 1)
# For writing, into the first cache (prefetchw, or prefetcht0 on AVX2 levels, which do not promise it).
WRITING = (1, 3, 1)
_LINE = 64


def prefetch_weights(
    sch: s_tir.Schedule,
    sums: Sums,
    dot: Dot,
    vectors: int,
    loops: dict[str, Any],
    apart: int = 1,
) -> tvm.tirx.PrimFunc:
    """The function that also fetches the next panel's part of the argument `weight`, a little in every tile of pixels.

    A panel (`vectors` weight vectors a step) is read from memory for the first tile, and for all others from the second
    cache. Left alone, memory is busy during the first tile only, and holds it up: on weights of 2 MB and 7 tiles that
    costs a fifth. Stretches of steps are fetched, of each every `apart`-th if that divides it.

    `loops` say what the loops around `sums` count: "panel", "row", "column" if a row has several tiles, "block" if
    panels are counted in blocks, and "tap_row" and "tap_column" if those are no loops of `sums`.
    """
    step, stretch = _stretches(sch, sums)
    steps = stretch * _steps.extent(sch, sums.unrolled[0]) * dot.summed
    taps = dict(zip(("tap_row", "tap_column"), sums.taps, strict=False))
    mark_loops(sch, {**loops, **taps, "step": step})
    func = sch.mod["main"]
    job = (argument(func, "weight"), vectors, steps, gcd(apart, steps))

    def fetching(inside: dict) -> tirx.For:
        step = inside["step"]
        lines = prefetch_lines(inside, *job, step.loop_var)
        return with_loop_body(step, tirx.SeqStmt([lines, step.body]))

    return replace_steps(func, fetching)


def prefetch_rows(
    sch: s_tir.Schedule, sums: Sums, block, tiles: dict[str, Any]
) -> tvm.tirx.PrimFunc:
    """The function that also fetches the next block's part of the argument `data`, bytes that follow those of this
    block, a little in every tile.

    A tile reads as many rows in turns as it has pixels, a word of each. Processors that guess what is read next do not
    see that these follow each other, and wait for the third cache, or for memory, at every line.

    `tiles` are the loops in `block` around `sums`, by names of any kind.
    """
    step, _ = _stretches(sch, sums)
    mark_loops(sch, {"block": block, **tiles, "step": step})
    func = sch.mod["main"]
    data = argument(func, "data")
    bytes_in_all = prod(int(extent) for extent in data.shape)

    def fetching(inside: dict) -> tirx.For:
        step = inside["step"]
        number, count = tirx.const(0, "int32"), 1
        for loop in (*(inside[name] for name in tiles), step):
            number = number * int(loop.extent) + loop.loop_var
            count *= int(loop.extent)
        size = bytes_in_all // int(inside["block"].extent)
        share = -(-size // (_LINE * count))
        line = tirx.Var("line", "int32")
        begin = (inside["block"].loop_var + 1) * size
        at = [*[0] * (len(data.shape) - 1), begin + (number * share + line) * _LINE]
        fetch = tirx.Evaluate(prefetch(data, at, READING))
        lines = tirx.For(line, 0, share, tirx.ForKind.SERIAL, fetch)
        return with_loop_body(step, tirx.SeqStmt([lines, step.body]))

    return replace_steps(func, fetching)


def _stretches(sch: s_tir.Schedule, sums: Sums) -> tuple[Any, int]:
    """The loop over stretches of up to 64 steps of `sums`, and how many steps each has.

    One prefetch in each step would do as well, but LLVM does not keep accumulators in registers across it.
    """
    stretch = _steps.largest_divisor(_steps.extent(sch, sums.steps), 64)
    step, _ = sch.split(sums.steps, [None, stretch])
    return step, stretch


def prefetch_filters(sch: s_tir.Schedule, loops: dict[str, Any]) -> tvm.tirx.PrimFunc:
    """The function that also fetches, wherever it transforms a step of filters, the step of the next part.

    `loops` say what the loops around that count: "block" blocks of panels, "part" parts of the run, "panel" and "step".
    """
    mark_loops(sch, loops)
    func = sch.mod["main"]
    weight = argument(func, "weight")

    def fetching(inside: dict) -> tirx.For:
        step = inside["step"]
        var = {role: loop.loop_var for role, loop in inside.items()}
        panel = var["block"] * int(inside["panel"].extent) + var["panel"]
        # Behind the last part lies the next panel.
        ahead = (var["part"] + 1) * int(step.extent) + var["step"]
        rows = [
            tirx.Evaluate(prefetch(weight, [panel, ahead, row, 0, 0, 0], READING))
            for row in range(3)
        ]
        return with_loop_body(step, tirx.SeqStmt([*rows, step.body]))

    return replace_steps(func, fetching)


def prefetch_share(
    buffer, at: list, size: int, number, count: int, kind: tuple[int, int, int]
) -> None:
    """Emit the part `number` of `count` of the prefetches of `size` bytes from `at` on, in a buffer of bytes.

    They may lie behind the end of a row, or of the buffer: prefetches do not fault.
    """
    share = -(-size // (_LINE * count))
    for line in range(share):
        place = [*at[:-1], at[-1] + (number * share + line) * _LINE]
        T.evaluate(prefetch(buffer, place, kind))


def prefetch(buffer, at: list, kind: tuple[int, int, int]):
    """Asking for the line of a buffer's element, as an expression."""
    address = tirx.address_of(tirx.BufferLoad(buffer, at))
    return tirx.call_intrin("void", "tirx.prefetch", address, *kind)


def prefetch_lines(loops: dict, buffer, vectors: int, steps: int, apart: int, stretch):
    """One tile's share of the lines (weight vectors) of stretch number `stretch` of `steps`."""
    var = {role: loop.loop_var for role, loop in loops.items()}
    columns = int(loops["column"].extent) if "column" in loops else 1
    each_panel = steps // apart
    share = -(-vectors * each_panel // (int(loops["row"].extent) * columns))
    each = tirx.Var("line", "int32")
    line = (var["row"] * columns + var.get("column", 0)) * share + each
    line = tirx.min(line, vectors * each_panel - 1)
    panel = var["panel"] + 1
    if "block" in var:
        panel = panel + var["block"] * int(loops["panel"].extent)
    panel = panel * vectors + line // each_panel
    step = stretch * steps + line % each_panel * apart
    at = [panel, var["tap_row"], var["tap_column"], step, 0, 0]
    fetch = tirx.Evaluate(prefetch(buffer, at, READING))
    return tirx.For(each, 0, share, tirx.ForKind.SERIAL, fetch)
