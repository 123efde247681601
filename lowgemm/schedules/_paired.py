"""Sums of products in 16 bits of two words at a time, of words in an order that is each tile's own.

vpmaddubsw multiplies a word of four bytes and adds products in 16 bits, which vpmaddwd widens. Where two words' sums
fit 16 bits together, they take one vpmaddwd, and an addition of 16 bits instead of one of 32: five instructions instead
of six, three instead of four of them multiplications, for which a Zen 3 has two ports. Which words go together is found
when a weight is packed (`ConvPacking.pair`), and where they lie is read beside it:

for s in pairs:    acc += widen(dot(left + places[2 s], weight[2 s]) + dot(left + places[2 s + 1], weight[2 s + 1]))
for s in the rest: acc += widen(dot(left + places[s], weight[s]))
"""

from collections.abc import Callable
from math import prod
from typing import Any

import tvm
from tvm import s_tir, sym, tirx

from lowgemm import intrin
from lowgemm.intrin import Dot
from lowgemm.schedules import _steps
from lowgemm.schedules._marked import mark_loops, replace_steps
from lowgemm.schedules._prefetch import prefetch_lines
from lowgemm.schedules._steps import Sums
from lowgemm.statements import argument, with_body, with_loop_body
from lowgemm.tiling import held_weights


def sum_pairs(
    sch: s_tir.Schedule,
    acc,
    sums: Sums,
    dot: Dot,
    registers: int,
    loops: dict[str, Any],
    paired: int,
    fetch: bool = False,
) -> tvm.tirx.PrimFunc:
    """`_steps.sum_in_registers` for words in the order of the argument `places`: the function.

    `loops` are those of `prefetch_weights`, of which only "panel" is needed unless the next panel is to be fetched.
    `paired` vectors share an order; where a tile has more of them, all orders have as many pairs.
    """
    _steps.initialise_registers(sch, acc, [*sums.taps, sums.steps][0])
    for loop in sums.unrolled:
        sch.unroll(loop)
    taps = dict(zip(("tap_row", "tap_column"), sums.taps, strict=False))
    mark_loops(sch, {**loops, **taps, "step": sums.steps})
    func = sch.mod["main"]
    weight, places = argument(func, "weight"), argument(func, "places")

    def summed(inside: dict):
        tap = [inside[role].loop_var if role in taps else 0 for role in ("tap_row", "tap_column")]

        def place(word, order=0):
            orders = tile.count // paired
            at = [inside["panel"].loop_var * orders + order, *tap, word]
            return tirx.BufferLoad(places, at)

        tile = _Tile(inside["step"].body, dot, registers, paired, place)
        words = int(places.shape[-1]) - 1
        pairs = place(words).astype("int32")
        stretch = [prefetch_lines(inside, weight, tile.count, words, 1, 0)] if fetch else []
        both = [tile.loop(2, 0, pairs), tile.loop(1, 2 * pairs, words - 2 * pairs)]
        code = tvm.ir.StringImm(intrin.in_memory_code(dot.lanes))
        zero = tirx.const(0, "int32")
        return tirx.AttrStmt(zero, "pragma_import_llvm", code, tirx.SeqStmt([*stretch, *both]))

    return replace_steps(func, summed)


class _Tile:
    """The dot products of a step of a register tile: what `_steps.order_sums` made, for other words of the run."""

    def __init__(self, step, dot: Dot, registers: int, paired: int, place: Callable) -> None:
        """`step` is the body of the loop over steps, and `place` says where a word of an order lies in the run."""
        self.dot, self.paired, self.place = dot, paired, place
        loops = []
        while isinstance(step, tirx.For):
            loops.append(step)
            step = step.body
        self.block, self.values = step.block, list(step.iter_values)
        *self.pixels, self.vectors, self.lane, self.depth = loops
        self.acc, self.left, self.weight = self.block.reads
        accumulators = prod(int(loop.extent) for loop in self.pixels) * self.count
        self.held = held_weights(accumulators, registers)

    @property
    def count(self) -> int:
        """Vectors of the tile side by side."""
        return int(self.vectors.extent)

    def loop(self, together: int, first, trips) -> tirx.For:
        """for s in trips: the dot products of the words from `first + together * s` on, so many at a time."""
        step = tirx.Var("s", "int32")
        words = [first + step * together + i for i in range(together)]
        # The block's element of the reduction is the first of the run.
        values = [*self.values[:-1], tirx.const(0, "int32")]
        block = with_body(self.block, tirx.SeqStmt(self._statements(words)))
        nest = s_tir.SBlockRealize(values, True, block)
        for loop in (self.depth, self.lane, self.vectors):
            nest = tirx.For(loop.loop_var, 0, 1, tirx.ForKind.SERIAL, nest)
        for loop in reversed(self.pixels):
            nest = with_loop_body(loop, nest)
        return tirx.For(step, 0, trips, tirx.ForKind.SERIAL, nest)

    def _runs(self) -> tuple[Any, Any]:
        """The addresses of the first pixel's run, and of this one's."""
        own = [r.min for r in self.left.region]
        first = [
            index - sum(loop.loop_var * self._factor(index, loop) for loop in self.pixels)
            for index in own
        ]
        # Not by the buffer's extents: they shrink to what a block needs of them.
        first, own = (tirx.address_of(tirx.BufferLoad(self.left.source, at)) for at in (first, own))
        return first, own

    def _factor(self, index, loop: tirx.For):
        """By how much `index` of the block grows from one iteration of a loop around it to the next."""
        factor: Any = tirx.const(0, "int32")
        for axis, value in zip(self.block.iter_vars, self.values, strict=True):
            step = _coefficient(value, loop.loop_var)
            if not (isinstance(step, tirx.IntImm) and step.value == 0):
                factor = factor + step * _coefficient(index, axis.var)
        return factor

    def _statements(self, words: list) -> list:
        """acc += widen(sum over `words` of dot(left, weight)), for a pixel and all vectors.

        Vectors come one after the other, so that the sums of only one are in registers at a time.
        """
        lanes, statements = self.dot.lanes, []
        panel, *tap = [r.min for r in self.weight.region][:3]
        *pixel, output = (r.min for r in self.acc.region)
        first, own = self._runs()

        def bound(value, name: str, dtype: str):
            variable = tirx.Var(name, dtype)
            statements.append(tirx.Bind(variable, value))
            return variable

        held = self.held
        for v in range(self.count):
            if v % self.paired == 0:
                starts = [self.place(word, v // self.paired) for word in words]
                repeated = [
                    intrin.repeated_from_memory(first, start, own, lanes) for start in starts
                ]
                repeated = [bound(value, "word", f"uint8x{4 * lanes}") for value in repeated]
            sums = None
            for word, a in zip(words, repeated, strict=True):
                at = [panel + v, *tap, word, 0, 0]
                if held > 0:
                    held -= 1
                    b = self.weight.source.vload(at, f"int8x{4 * lanes}")
                    total = intrin.byte_products(a, b, lanes)
                else:
                    b = tirx.address_of(tirx.BufferLoad(self.weight.source, at))
                    total = intrin.byte_products_in_memory(a, b, lanes)
                sums = total if sums is None else sums + total
            sums = bound(sums, "sums", f"int16x{2 * lanes}")
            at = [*pixel, output + v * lanes]
            acc = self.acc.source.vload(at, f"int32x{lanes}")
            total = intrin.accumulate_sums(acc, sums, lanes)
            statements.append(self.acc.source.vstore(at, total))
        return statements


def _coefficient(expression, variable):
    """That of a variable in an expression that is linear in it."""
    return sym.detect_linear_equation(expression, [variable])[0]
