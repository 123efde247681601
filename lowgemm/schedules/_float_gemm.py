"""The product of float32 activations with packed weights of fewer bits: loops and registers around `topi._float_gemm`.

With few rows, weights become float32 in registers. With many, a chunk of a panel becomes float32 in the first cache and
serves all tiles of a block of rows, because conversions take the ports of multiplications on some CPUs; and a copy of a
chunk of the block's activations serves several panels from the second.

    few:  for group: for step: inner += a * value(weight)                             then total += inner * scale
    many: for group: for chunk: copy; for panel: convert; for tile: for step: inner   then total += inner * scale
"""

import contextlib
from collections.abc import Callable

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
)
from lowgemm.topi import (
    FloatGemmArguments,
    FloatGemmForm,
    f32,
    fma,
    narrowed,
    weight_value,
    widened,
)

# Vectors of a chunk of a panel: half of the first cache, or about all of it if they have 64 bytes.
_CHUNK_VECTORS = 512
# Elements behind each row of a chunk of activations.
_ROW_PADDING = 16
# Columns of a block, whose sums stay in the second cache.
_BLOCK_COLUMNS = 128
# Accumulators that keep the multipliers busy: two multiplications a cycle, with a latency of four.
_CHAINS = 8


def float_gemm_config(form: FloatGemmForm) -> PanelConfig:
    """Tiles of six rows, and of few rows several panels."""
    layout = form.layout
    several = tuple(max(1, _CHAINS // (rows * layout.vectors)) for rows in range(1, FEW_ROWS + 1))
    return PanelConfig(FEW_ROWS, several, block=16, together=max(1, _BLOCK_COLUMNS // layout.width))


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

    def each_group(self, span: Callable) -> None:
        """Emit `span(first step, last step, group)` for all groups."""
        scale, size = self.args.scale, self.args.group_size
        if scale is None:
            span(0, self.depth, None)
            return
        with T.serial(0, scale.ty.shape[0]) as group:
            span(group * size, tirx.min((group + 1) * size, self.depth), group)

    def multiply(self, accumulators: Registers, weights: list, factors: list) -> None:
        """Emit one step of the product of some rows, each with a factor, and vectors of weights."""
        for r, scalar in enumerate(factors):
            factor = tirx.Broadcast(scalar, self.lanes)
            for j, weight in enumerate(weights):
                i = r * len(weights) + j
                if self.form.pairs:
                    accumulators[i] = bfloat16_dot(accumulators[i], factor, weight, self.lanes)
                else:
                    accumulators[i] = fma(factor, weight, accumulators[i])

    def weight(self, panel, vector: int, word, place, group):
        """A vector of weights: float32, or words where the instruction takes these."""
        loaded = self.word(panel, vector, word)
        if self.form.pairs:
            return loaded
        zero = self.column(self.args.zero, panel, vector, group) if self.form.zero else None
        return weight_value(self.form.layout.kind, loaded, place, zero)

    def word(self, panel, vector: int, word):
        """A vector of words as they are in memory."""
        dtype = f"{self.form.layout.format.dtype}x{self.lanes}"
        return self.args.weight.vload([panel, word, vector * self.lanes], dtype)

    def column(self, values, panel, vector: int, group):
        """A vector of what is held for each column of each group."""
        at = panel * self.width + vector * self.lanes
        return values.vload([group, at], f"float32x{self.lanes}")

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
        """Emit the loops; before them, activations are rounded, if the form says so."""
        self._staged = self.args.a
        if self.form.rounded:
            self._staged = T.alloc_buffer((self.m, self.depth), self.operand)
            with T.parallel(0, self.m) as row, T.serial(0, self.depth) as step:
                T.buffer_store(self._staged, self.activation(row, step), [row, step])
        most = max(rows * panels for rows, panels in enumerate(self.config.several, 1))

        def body(panel, panels, choose: Callable) -> None:
            total = Vectors(most * self.vectors, self.lanes)
            choose(lambda rows, panels: self._tile(total, rows, panel, panels))
            self.store(total, 0, 0, self.m, panel, panels * self.vectors)

        few_rows(self.m, self.panels, self.config, body)

    def _tile(self, total: Vectors, rows: int, panel, panels: int) -> None:
        at = [(panel + p, v) for p in range(panels) for v in range(self.vectors)]
        count = rows * len(at)
        inner = Registers(count, self.lanes)

        def span(first, last, group) -> None:
            def multiply(step, word, place) -> None:
                weights = [self.weight(p, v, word, place, group) for p, v in at]
                self.multiply(inner, weights, [self._staged[row, step] for row in range(rows)])

            for i in range(count):
                inner[i] = self.zeros()
            self._each_step(first, last, multiply, self.steps == 1 or rows == 1)
            for i in range(count):
                result = inner[i]
                if self.form.scaled:
                    scale = self.column(self.args.scale, *at[i % len(at)], group)
                    result = fma(result, scale, total[i])
                total[i] = result

        if self.form.scaled:
            for i in range(count):
                total[i] = self.zeros()
        self.each_group(span)

    def _each_step(self, first, last, body: Callable, known: bool) -> None:
        """Emit `body(step, word, place in the word)` for all steps; with `known` places as constants."""
        start = fixed(tirx.truncdiv(first, self.steps))
        whole = fixed(tirx.truncdiv(last - first, self.steps))
        with T.serial(start, start + whole) as word:
            for place in range(self.steps) if known else ():
                body(word * self.steps + place, word, place)
            if not known:
                with T.serial(0, self.steps) as place:
                    body(word * self.steps + place, word, place)
        if self.steps > 1:
            with T.serial(0, tirx.truncmod(last - first, self.steps)) as place:
                body((start + whole) * self.steps + place, start + whole, place)


class _Many(_Kernel):
    """Blocks of tiles, and chunks of weights that become float32 in memory."""

    def product(self) -> None:
        """Emit the loops."""
        many_rows(self.m, self.panels, self.args.tasks, self.config, self._block)

    def _block(self, block: RowBlock, first_panel, panels) -> None:
        config = self.config
        height = config.rows * config.block
        # The vectors of a panel's part of the block.
        part = height * self.vectors
        inner = Vectors(part * config.together, self.lanes)
        total = Vectors(part * config.together, self.lanes) if self.form.scaled else inner
        length = _CHUNK_VECTORS // self.vectors
        converting = not self.form.pairs and self.form.layout.kind != "float32"
        chunk = Vectors(length * self.vectors, self.lanes) if converting else None
        # Far apart in memory, rows would take the same places of a cache.
        rows = T.alloc_buffer((height, length + _ROW_PADDING), self.operand)

        @contextlib.contextmanager
        def each_vector():
            """A loop over the sums of the block: its vector of sums, its panel, its vector of columns."""
            loops = T.serial(0, panels), T.serial(0, block.rows), T.serial(0, self.vectors)
            with loops[0] as p, loops[1] as row, loops[2] as v:
                yield p * part + row * self.vectors + v, first_panel + p, v

        def span(first, last, group) -> None:
            with each_vector() as (i, _, _):
                inner[i] = self.zeros()
            with T.serial(0, tirx.truncdiv(last - first + length - 1, length)) as number:
                start = fixed(first + number * length)
                steps = fixed(tirx.min(length, last - start))
                with T.serial(0, block.rows) as row, T.serial(0, steps) as k:
                    T.buffer_store(rows, self.activation(block.row + row, start + k), [row, k])
                with T.serial(0, panels) as p:
                    panel = first_panel + p
                    if chunk:
                        self._convert(chunk, panel, start, steps, group)

                    def weight(k, v: int):
                        if chunk:
                            return chunk[k * self.vectors + v]
                        return self.word(panel, v, start + k)

                    def tile(row, count: int) -> None:
                        registers = Registers(count * self.vectors, self.lanes)
                        at = p * part + row * self.vectors
                        for i in range(len(registers)):
                            registers[i] = inner[at + i]
                        with T.serial(0, steps) as k:
                            weights = [weight(k, v) for v in range(self.vectors)]
                            factors = [rows[row + r, k] for r in range(count)]
                            self.multiply(registers, weights, factors)
                        for i in range(len(registers)):
                            inner[at + i] = registers[i]

                    block.each(tile)
            if self.form.scaled:
                with each_vector() as (i, panel, v):
                    scale = self.column(self.args.scale, panel, v, group)
                    total[i] = fma(inner[i], scale, total[i])

        if self.form.scaled:
            with each_vector() as (i, _, _):
                total[i] = self.zeros()
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
