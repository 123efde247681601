"""The product of float32 activations with packed weights of fewer bits: loops and registers around `topi._float_gemm`.

Activations are copied in chunks of the depth, in which rows are a constant distance apart: one register then addresses
all rows of a tile. Weights become float32 in registers. Only for many rows in vectors of 64 bytes, a chunk of a panel
becomes float32 in the first cache and serves all tiles of a block of rows: there conversions take the ports of
multiplications on some CPUs.

    few:  copy; for group: for chunk: for step: inner += a * value(weight)           then total += inner * scale
    many: for group: for chunk: copy; for panel: for tile: for step: inner           then total += inner * scale
"""

import contextlib
import itertools
from collections.abc import Callable
from math import prod
from typing import Any

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from lowgemm.intrin import bfloat16_dot, defining_bfloat16_dot
from lowgemm.packing_panels import FEW_ROWS
from lowgemm.schedules._panels import (
    PanelConfig,
    Registers,
    RowBlock,
    Vectors,
    few_rows,
    fixed,
    function_attributes,
    many_rows,
    size,
    when,
)
from lowgemm.schedules._vectors import fold
from lowgemm.topi import (
    FloatGemmArguments,
    FloatGemmForm,
    f32,
    fma,
    narrowed,
    weight_value,
    widened,
)

# Steps of a chunk: six rows of it, and as much of a panel of 16 bits, take most of the first cache.
_CHUNK = 512
# Vectors of a chunk that becomes float32 in memory.
_CONVERTED_VECTORS = 512
_CONVERTING_LANES = 16
# Steps of an iteration, at least: what counts them takes slots of the six a cycle, of which a tall tile leaves few, and
# another program on the same core fewer. Of float32, which needs no conversion, LLVM holds so many weights in registers
# that it spills sums of four rows by three vectors, unless there are fewer steps.
_UNROLLED = 4
_UNROLLED_FLOAT32 = 2
# Elements behind each row of a chunk of activations.
_ROW_PADDING = 16
# Columns of a block, whose sums stay in the second cache.
_BLOCK_COLUMNS = 512
# Accumulators that keep the multipliers busy: two multiplications a cycle, with a latency of four.
_CHAINS = 8
# Tiles of so many rows by the two vectors of a panel have too few accumulators for that, or none to spare. So this many
# panels are taken as two tiles of three vectors.
_WIDE_ROWS = (3, 4)
_WIDE = 3


def float_gemm_config(form: FloatGemmForm) -> PanelConfig:
    """Tiles of six rows, and of few rows several panels."""
    layout = form.layout
    several = [max(1, _CHAINS // (rows * layout.vectors)) for rows in range(1, FEW_ROWS + 1)]
    for rows in wide_rows(form, few=True):
        several[rows - 1] = _WIDE
    tallest = FEW_ROWS
    if form.summed and layout.vectors == 2:
        # Words and masks leave no registers for twelve sums of a panel; six rows are twice three.
        several[FEW_ROWS - 1] = _WIDE
        tallest = FEW_ROWS - 1
    together = max(1, _BLOCK_COLUMNS // layout.width)
    return PanelConfig(tallest, tuple(several), block=16, together=together)


def wide_rows(form: FloatGemmForm, few: bool) -> tuple[int, ...]:
    """How many rows are taken by three vectors at a time.

    Beside twelve sums, three weights and an activation no register is left of sixteen, and LLVM spills sums in some of
    those that take masks.
    """
    kind, shifted = form.layout.kind, form.layout.shifted
    if form.layout.vectors != 2:
        return ()
    masked = form.summed or (shifted and (few or kind == "bfloat16"))
    return _WIDE_ROWS[:1] if masked else _WIDE_ROWS


def float_gemm(form: FloatGemmForm, few: bool) -> tvm.tirx.PrimFunc:
    """The function of `topi._float_gemm` for 1 to 6 rows (`few`), or for more."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        function_attributes()
        kernel = (_Few if few else _Many)(form)
        with defining_bfloat16_dot(form.layout.lanes) if form.pairs else contextlib.nullcontext():
            kernel.product()
    return builder.get()


class _Kernel:
    """What both functions have in common, and the one that is being built."""

    def __init__(self, form: FloatGemmForm) -> None:
        layout = form.layout
        self.form = form
        self.config = float_gemm_config(form)
        self.args = FloatGemmArguments.declare(form)
        self.lanes, self.vectors, self.width = layout.lanes, layout.vectors, layout.width
        self.m, depth = self.args.a.ty.shape
        self.panels = self.args.weight.ty.shape[0]
        # Steps are of the depth, or of words where an instruction takes these.
        self.depth = self.args.weight.ty.shape[1] if form.pairs else depth
        self.steps = 1 if form.pairs else layout.format.steps
        self.operand = "uint32" if form.pairs else "float32"
        if form.summed:
            assert self.args.scale is not None
            self.sums = T.alloc_buffer((self.m, self.args.scale.ty.shape[0]), "float32")

    def activation(self, row, step):
        """What a step multiplies of a row: float32, or, where the instruction takes them, a word of two bfloat16."""
        a = self.args.a
        if not self.form.rounded:
            return a[row, step]
        if not self.form.pairs:
            return widened(narrowed(a[row, step], "bfloat16"), "bfloat16")
        low, high = (narrowed(a[row, 2 * step + i], "bfloat16").astype("uint32") for i in range(2))
        whole = 2 * step + 1 < a.ty.shape[1]
        zero = tirx.const(0, "uint32")
        return low | tirx.if_then_else(whole, high << tirx.const(16, "uint32"), zero)

    def copy(self, row, start, steps, to, at: list) -> None:
        """Emit the copy of a row's activations, `steps` from `start` on, to where a tile wants them."""
        shares = [1.0 / self.form.layout.place_value(place) for place in range(self.steps)]
        if shares == [1.0] * self.steps:
            with T.serial(0, steps) as k:
                T.buffer_store(to, self.activation(row, start + k), [*at, k])
            return
        whole = fixed(tirx.truncdiv(steps, self.steps))
        with T.serial(0, whole) as word:
            values = self.args.a.vload([row, start + word * self.steps], f"float32x{self.steps}")
            factor = tirx.Shuffle([f32(share) for share in shares], list(range(self.steps)))
            T.buffer_store(to, values * factor, [*at, T.ramp(word * self.steps, 1, self.steps)])
        rest = fixed(steps - whole * self.steps)
        for place in range(self.steps - 1):
            with when(place < rest):
                k = whole * self.steps + place
                value = self.args.a[row, start + k] * f32(shares[place])
                T.buffer_store(to, value, [*at, k])

    def sum_groups(self, row) -> None:
        """Emit the sums of a row's activations in each group, as `topi._float_gemm` has them."""
        a, count = self.args.a, self.steps
        lanes = Registers(1, count)
        cell = T.alloc_buffer((1,), "float32")

        def span(first, last, group) -> None:
            lanes[0] = tirx.Broadcast(f32(0.0), count)
            words = fixed(tirx.truncdiv(last - first, count))
            with T.serial(0, words) as word:
                lanes[0] = lanes[0] + a.vload([row, first + word * count], f"float32x{count}")
            T.buffer_store(cell, fold(lanes[0], count, lambda x, y: x + y), [0])
            rest = fixed(first + words * count)
            with T.serial(0, last - rest) as k:
                T.buffer_store(cell, cell[0] + a[row, rest + k], [0])
            T.buffer_store(self.sums, cell[0], [row, group])

        self.each_group(span)

    def scaled(self, inner, total, row, panel, vector: int, group):
        """`total` and the sum `inner` of a group."""
        if self.form.summed:
            offset = tirx.Broadcast(f32(-8.0), self.lanes)
            if self.form.zero:
                offset = self.column(self.args.zero, panel, vector, group)
            inner = fma(offset, tirx.Broadcast(self.sums[row, group], self.lanes), inner)
        return fma(inner, self.column(self.args.scale, panel, vector, group), total)

    def each_group(self, span: Callable) -> None:
        """Emit `span(first step, last step, group)` for all groups."""
        scale, size = self.args.scale, self.args.group_size
        if scale is None:
            span(0, self.depth, None)
            return
        with T.serial(0, scale.ty.shape[0]) as group:
            last = fixed(tirx.min((group + 1) * size, self.depth))
            span(fixed(group * size), last, group)

    def multiply(self, accumulators: Registers, weights: list, factors: list) -> None:
        """Emit one step of the product of some rows, each with a factor, and vectors of weights."""
        spread = [tirx.Broadcast(scalar, self.lanes) for scalar in factors]
        places = [(r, j) for r in range(len(factors)) for j in range(len(weights))]
        if len(weights) > len(factors):
            places.sort(key=lambda place: place[1])  # fewer of both are in registers at a time
        for r, j in places:
            i, factor = r * len(weights) + j, spread[r]
            if self.form.pairs:
                accumulators[i] = bfloat16_dot(accumulators[i], factor, weights[j], self.lanes)
            else:
                accumulators[i] = fma(factor, weights[j], accumulators[i])

    def weight(self, panel, vector: int, word, place, group):
        """A vector of weights: float32, or words where the instruction takes these."""
        loaded = self.word(panel, vector, word, place)
        if self.form.pairs:
            return loaded
        zero = None
        if self.form.zero and not self.form.summed:
            zero = self.column(self.args.zero, panel, vector, group)
        return weight_value(self.form.layout, loaded, place, zero)

    def word(self, panel, vector: int, word, place):
        """A vector of words, as they are in memory or as they are read for a place."""
        layout, weight = self.form.layout, self.args.weight
        dtype, steps = layout.format.dtype, layout.format.steps
        if not layout.shifted:
            return weight.vload([panel, word, vector * self.lanes], f"{dtype}x{self.lanes}")
        begin = (word * self.width + vector * self.lanes) * steps + place
        loaded = weight.vload([panel, begin], f"{dtype}x{self.lanes * steps}")
        return tirx.reinterpret(f"uint32x{self.lanes}", loaded)

    def column(self, values, panel, vector: int, group):
        """A vector of what is held for each column of each group."""
        at = panel * self.width + vector * self.lanes
        return values.vload([group, at], f"float32x{self.lanes}")

    def each_step(self, first, last, body: Callable, of: int | None = None) -> None:
        """Emit `body(step, word, place in the word)` for all steps, counted from the first, which begins a word.

        Words have `of` steps, or as many as where weights are kept.
        """
        each = of or self.steps
        start = fixed(tirx.truncdiv(first, each))
        least = _UNROLLED_FLOAT32 if self.form.layout.kind == "float32" else _UNROLLED
        words = max(1, least // each)
        together = words * each
        whole = fixed(tirx.truncdiv(last - first, together))
        with T.serial(0, whole) as number:
            for word, place in itertools.product(range(words), range(each)):
                at = number * words + word
                body(at * each + place, start + at, place)
        rest = fixed(tirx.truncmod(last - first, together))
        with T.serial(0, rest) as more:
            step = fixed(whole * together + more)
            place = tirx.truncmod(step, each) if each > 1 else 0
            body(step, start + tirx.truncdiv(step, each), place)

    def zeros(self):
        """A vector of zeros."""
        return tirx.Broadcast(f32(0.0), self.lanes)

    def store(self, total: Vectors, start, row, rows, panel, vectors) -> None:
        """Emit the output of `rows` rows and `vectors` neighbouring vectors, whose sums are in `total` from vector
        `start` on: whole vectors, but for the last columns."""
        c, bias, beta = self.args.c, self.args.bias, self.args.beta
        left = panel * self.width
        width = vectors * self.lanes

        def put(value, bias, factor, at) -> None:
            value = value + bias
            with T.If(beta == f32(0.0)):
                with T.Then():
                    T.buffer_store(c, value, at)
                with T.Else():
                    T.buffer_store(c, fma(factor, c[tuple(at)], value), at)

        with T.serial(0, rows) as r, T.If(left + width <= c.ty.shape[1]):
            with T.Then(), T.serial(0, vectors) as v:
                column = T.ramp(left + v * self.lanes, 1, self.lanes)
                factor = tirx.Broadcast(beta, self.lanes)
                put(total[start + r * vectors + v], bias[column], factor, [row + r, column])
            with T.Else(), T.serial(0, c.ty.shape[1] - left) as j:
                value = total.elements[start * self.lanes + r * width + j]
                put(value, bias[left + j], beta, [row + r, left + j])


class _Few(_Kernel):
    """All rows are one tile, and weights become float32 in registers."""

    def product(self) -> None:
        """Emit the loops; before them, the copy of activations."""
        # TVM allocates it in front of all that could be a variable here.
        chunks = tirx.truncdiv(self.depth + _CHUNK - 1, _CHUNK)
        self._staged = T.alloc_buffer((chunks, FEW_ROWS, _CHUNK + _ROW_PADDING), self.operand)
        with T.serial(0, chunks) as chunk, T.serial(0, self.m) as row:
            start = fixed(chunk * _CHUNK)
            steps = fixed(tirx.min(_CHUNK, self.depth - start))
            self.copy(row, start, steps, self._staged, [chunk, row])
        if self.form.summed:
            with T.serial(0, self.m) as row:
                self.sum_groups(row)
        most = max(rows * panels for rows, panels in enumerate(self.config.several, 1))

        def body(panel, panels, choose: Callable) -> None:
            total = Vectors(most * self.vectors, self.lanes)
            choose(lambda rows, panels: self._tile(total, rows, panel, panels))
            self.store(total, 0, 0, self.m, panel, panels * self.vectors)

        few_rows(self.m, self.panels, self.config, body)

    def _tile(self, total: Vectors, rows: int, panel, panels: int) -> None:
        whole = [(panel + p, v) for p in range(panels) for v in range(self.vectors)]
        width = _WIDE if panels == _WIDE else len(whole)
        height = rows if rows < FEW_ROWS or panels == 1 else rows // 2
        for first, begin in itertools.product(range(0, rows, height), range(0, len(whole), width)):
            at = whole[begin : begin + width]
            chosen = range(first, first + height)
            places = [r * len(whole) + begin + j for r in chosen for j in range(len(at))]
            self._part(total, chosen, at, places)

    def _part(
        self, total: Vectors, rows: range, at: list[tuple[Any, int]], places: list[int]
    ) -> None:
        """A tile of the vectors `at`, panels and numbers in them, with its sums at `places` of `total`."""
        count = len(places)
        inner = Registers(count, self.lanes)

        def span(first, last, group) -> None:
            for i in range(count):
                inner[i] = self.zeros()
            before = fixed(tirx.truncdiv(first, _CHUNK))
            chunks = fixed(tirx.truncdiv(last + _CHUNK - 1, _CHUNK) - before)
            with T.serial(0, chunks) as number:
                chunk = fixed(before + number)
                start = fixed(chunk * _CHUNK)
                low = fixed(tirx.max(first, start))
                high = fixed(tirx.min(last, start + _CHUNK))
                skipped = fixed(low - start)

                def multiply(step, word, place) -> None:
                    weights = [self.weight(p, v, word, place, group) for p, v in at]
                    factors = [self._staged[chunk, row, skipped + step] for row in rows]
                    self.multiply(inner, weights, factors)

                self.each_step(low, high, multiply)
            for i, place in enumerate(places):
                result = inner[i]
                if self.form.scaled:
                    row = rows[i // len(at)]
                    result = self.scaled(result, total[place], row, *at[i % len(at)], group)
                total[place] = result

        if self.form.scaled:
            for place in places:
                total[place] = self.zeros()
        self.each_group(span)


class _Many(_Kernel):
    """Blocks of tiles, and chunks of weights that become float32 in memory."""

    @property
    def converting(self) -> bool:
        """Whether they do; otherwise weights become float32 in registers."""
        kind = self.form.layout.kind
        return self.lanes == _CONVERTING_LANES and not self.form.pairs and kind != "float32"

    def product(self) -> None:
        """Emit the loops; before them, sums of activations, if the form says so."""
        if self.form.summed:
            with T.parallel(0, self.m) as row:
                self.sum_groups(row)
        read = None
        if (
            not self.converting
        ):  # else a block makes float32 of its weights, and has many rows for that
            weight = self.args.weight.ty
            read = fixed(prod(weight.shape) * (tvm.DataType(str(weight.dtype)).bits // 8))
        many_rows(self.m, self.panels, self.args.tasks, self.config, self._block, read)

    def _block(self, block: RowBlock, first_panel, panels) -> None:
        config = self.config
        height = config.rows * config.block
        # The vectors of a panel's part of the block.
        part = height * self.vectors
        inner = Vectors(part * config.together, self.lanes)
        total = Vectors(part * config.together, self.lanes) if self.form.scaled else inner
        # Of whole words, as chunks begin with one.
        words = _CONVERTED_VECTORS // (self.vectors * self.steps)
        length = words * self.steps if self.converting else _CHUNK
        chunk = Vectors(length * self.vectors, self.lanes) if self.converting else None
        # Far apart in memory, rows would take the same places of a cache.
        rows = T.alloc_buffer((height, length + _ROW_PADDING), self.operand)

        def span(first, last, group) -> None:
            chunks = fixed(tirx.truncdiv(last - first + length - 1, length))
            with T.serial(0, chunks) as number:
                start = fixed(first + number * length)
                steps = fixed(tirx.min(length, last - start))
                with T.serial(0, block.rows) as row:
                    self.copy(block.row + row, start, steps, rows, [row])
                with T.serial(0, panels) as p:
                    panel = first_panel + p
                    if chunk:
                        self._convert(chunk, panel, start, steps, group)

                    def part_tile(row, count: int, at: list) -> None:
                        """Rows by vectors: their panels, counted from this one, and their numbers in these."""
                        places = [
                            ((p + q) * part + (row + r) * self.vectors + v, q, v)
                            for r in range(count)
                            for q, v in at
                        ]
                        registers = Registers(len(places), self.lanes)

                        def multiply(step, word, place) -> None:
                            weights = [
                                chunk[step * self.vectors + v]
                                if chunk
                                else self.weight(panel + q, v, word, place, group)
                                for q, v in at
                            ]
                            factors = [rows[row + r, step] for r in range(count)]
                            self.multiply(registers, weights, factors)

                        with T.If(number == 0):
                            with T.Then():
                                for i in range(len(places)):
                                    registers[i] = self.zeros()
                            with T.Else():
                                for i, (place, _, _) in enumerate(places):
                                    registers[i] = inner[place]
                        if chunk:
                            self.each_step(size(0), steps, multiply, 1)
                        else:
                            self.each_step(start, fixed(start + steps), multiply)
                        if not self.form.scaled:
                            for i, (place, _, _) in enumerate(places):
                                inner[place] = registers[i]
                            return
                        with T.If(number == chunks - 1):
                            with T.Then():
                                for i, (place, q, v) in enumerate(places):
                                    total[place] = self.scaled(
                                        registers[i],
                                        total[place],
                                        block.row + row + i // len(at),
                                        panel + q,
                                        v,
                                        group,
                                    )
                            with T.Else():
                                for i, (place, _, _) in enumerate(places):
                                    inner[place] = registers[i]

                    def tile(row, count: int) -> None:
                        narrow = [(0, v) for v in range(self.vectors)]
                        if chunk or count not in wide_rows(self.form, few=False):
                            part_tile(row, count, narrow)
                            return
                        wide = [(q, v) for q in range(_WIDE) for v in range(self.vectors)]
                        with T.If(p < tirx.truncdiv(panels, _WIDE) * _WIDE):
                            with T.Then(), when(tirx.truncmod(p, _WIDE) == 0):
                                for begin in range(0, len(wide), _WIDE):
                                    part_tile(row, count, wide[begin : begin + _WIDE])
                            with T.Else():
                                part_tile(row, count, narrow)

                    block.each(tile)

        if self.form.scaled:
            with (
                T.serial(0, panels) as p,
                T.serial(0, block.rows) as row,
                T.serial(0, self.vectors) as v,
            ):
                total[p * part + row * self.vectors + v] = self.zeros()
        self.each_group(span)
        with T.serial(0, panels) as p:
            self.store(total, p * part, block.row, block.rows, first_panel + p, self.vectors)

    def _convert(self, chunk: Vectors, panel, first, steps, group) -> None:
        """Emit the conversion of a panel's steps."""
        start = fixed(tirx.truncdiv(first, self.steps))
        with T.serial(0, tirx.truncdiv(steps + self.steps - 1, self.steps)) as word:
            for place in range(self.steps):
                for v in range(self.vectors):
                    value = self.weight(panel, v, start + word, place, group)
                    chunk[(word * self.steps + place) * self.vectors + v] = value
