"""The product of 64-bit integers with a packed weight: tiles of rows around the products that the target has."""

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from lowgemm.intrin import (
    defining_int64,
    int64_cross_products,
    int64_join,
    int64_low_product,
    int64_product,
)
from lowgemm.packing_panels import PanelLayout
from lowgemm.schedules._panels import (
    PanelConfig,
    Registers,
    RowBlock,
    Vectors,
    function_attributes,
    many_rows,
)
from lowgemm.targets import CpuTarget
from lowgemm.topi import Int64GemmArguments


def int64_gemm_config(target: CpuTarget) -> PanelConfig:
    """Six rows of four vectors take 24 of 32 registers; two of two, each with sums of two kinds, 8 of 16."""
    rows = 6 if target.has("avx512dq") else 2
    return PanelConfig(rows, (), block=16, together=1)


def int64_gemm(layout: PanelLayout, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """The function of `topi._int64_gemm`."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        function_attributes()
        args = Int64GemmArguments.declare(layout)
        kernel = _Kernel(layout, args, whole=target.has("avx512dq"))
        m, panels = args.a.ty.shape[0], args.weight.ty.shape[0]
        with defining_int64(layout.lanes):
            many_rows(m, panels, args.tasks, int64_gemm_config(target), kernel.block)
    return builder.get()


class _Kernel:
    """The function that is being built. `whole` says that the target multiplies 64 bits."""

    def __init__(self, layout: PanelLayout, args: Int64GemmArguments, whole: bool) -> None:
        self.args, self.whole = args, whole
        self.lanes, self.vectors, self.width = layout.lanes, layout.vectors, layout.width

    def block(self, block: RowBlock, panel, panels) -> None:
        """Emit a block of rows, and a panel."""
        del panels
        block.each(lambda row, rows: self._tile(block.row + row, rows, panel))

    def _tile(self, row, rows: int, panel) -> None:
        count = rows * self.vectors
        total = Vectors(count, self.lanes, "int64")
        for i in range(count):
            total[i] = self._zeros()
        with T.If(self.args.accumulate != tirx.const(0, "int64")), T.Then():
            self._copy(total, row, rows, panel, store=False)
        sums = Registers(count, self.lanes, "int64")
        crosses = None if self.whole else Registers(count, self.lanes, "int64")
        for i in range(count):
            sums[i] = total[i]
            if crosses:
                crosses[i] = self._zeros()
        with T.serial(0, self.args.weight.ty.shape[1]) as k:
            weights = [self._weight(panel, k, v) for v in range(self.vectors)]
            for r in range(rows):
                factor = tirx.Broadcast(self.args.a[row + r, k], self.lanes)
                for v, weight in enumerate(weights):
                    i = r * self.vectors + v
                    if crosses:
                        sums[i] = int64_low_product(sums[i], factor, weight, self.lanes)
                        crosses[i] = int64_cross_products(crosses[i], factor, weight, self.lanes)
                    else:
                        sums[i] = int64_product(sums[i], factor, weight, self.lanes)
        for i in range(count):
            total[i] = int64_join(sums[i], crosses[i], self.lanes) if crosses else sums[i]
        self._copy(total, row, rows, panel, store=True)

    def _copy(self, total: Vectors, row, rows: int, panel, store: bool) -> None:
        """Emit a copy of a tile to or from the output: whole vectors, but for the last columns."""
        c = self.args.c
        left = panel * self.width

        def move(inside: list, outside: list) -> None:
            if store:
                T.buffer_store(c, total.elements[tuple(inside)], outside)
            else:
                T.buffer_store(total.elements, c[tuple(outside)], inside)

        with T.serial(0, rows) as r, T.If(left + self.width <= c.ty.shape[1]):
            with T.Then(), T.serial(0, self.vectors) as v:
                column = v * self.lanes
                inside = T.ramp(r * self.width + column, 1, self.lanes)
                move([inside], [row + r, T.ramp(left + column, 1, self.lanes)])
            with T.Else(), T.serial(0, c.ty.shape[1] - left) as j:
                move([r * self.width + j], [row + r, left + j])

    def _weight(self, panel, k, vector: int):
        return self.args.weight.vload([panel, k, vector * self.lanes], f"int64x{self.lanes}")

    def _zeros(self):
        return tirx.Broadcast(tirx.const(0, "int64"), self.lanes)
