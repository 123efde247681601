"""Grouped convolution whose lanes are groups of few channels: nothing is multiplied by zeros beside the diagonal.

for row of pixels, block of groups, tile of pixels, or tile before block:
  acc[pixels, outputs of a group] = 0       registers
  for tap, word of four channels:           one vector of activations
    for output:  acc += dot(activations, weight vector)
  requantize four vectors to one, and transpose its bytes

As memory has channels in order, a vector of it has the words of as many groups as it has lanes. Four outputs of each
lane, packed to bytes, need one shuffle to be in order again.
"""

from collections.abc import Callable
from dataclasses import asdict

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from lowgemm import intrin
from lowgemm.packing import ConvShape, GroupedPacking
from lowgemm.schedules._panels import Registers, function_attributes
from lowgemm.schedules._unstaged import UnstagedKernel
from lowgemm.targets import CpuTarget
from lowgemm.tiling import SERIAL_MACS, GroupedConfig, check_grouped_config, unstaged_stores
from lowgemm.topi import OutputForm


def qgrouped2d(
    shape: ConvShape,
    packing: GroupedPacking,
    in_dtype: str,
    output: OutputForm,
    target: CpuTarget,
    config: GroupedConfig,
) -> tvm.tirx.PrimFunc:
    """`topi.qconv2d` for groups of up to four or of eight channels, without a residual or a table.

    Arguments as of `UnstagedKernel`, the weight as `packing` has it, columns `(blocks, outputs, lanes)`.

    Raises:
        ValueError: the configuration does not fit the shape or the target's registers.
    """
    check_grouped_config(shape, target, config)
    assert unstaged_stores(**asdict(output))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        function_attributes()
        kernel = _Kernel(shape, packing, in_dtype, output, target, config)
        code = intrin.in_memory_code if target.summed else intrin.dot_in_memory_code
        with T.attr(T.int32(0), "pragma_import_llvm", code(target.lanes)):
            kernel.rows(SERIAL_MACS)
    return builder.get()


class _Kernel(UnstagedKernel):
    def __init__(
        self,
        shape: ConvShape,
        packing: GroupedPacking,
        in_dtype: str,
        output: OutputForm,
        target: CpuTarget,
        config: GroupedConfig,
    ) -> None:
        self.packing, self.summed = packing, target.summed > 0
        lanes, outputs = packing.layout.lanes, packing.outputs
        held = (packing.blocks(shape.out_channels), outputs, lanes)
        taps = (shape.planes.kernel * shape.kernel[0], shape.kernel[1])
        weight = (held[0], *taps, packing.quads, outputs, lanes, 4), "int8"
        tiles = (config.pixels, packing, held, config.whole)
        super().__init__(shape, in_dtype, output, weight, *tiles)

    def block_tile(self, load: Callable, source, block, at: list, x) -> None:
        shape, outputs, lanes = self.shape, self.packing.outputs, self.lanes
        channel = self.first(block)
        columns = [(block, j, T.ramp(0, 1, lanes)) for j in range(outputs)]
        sums = self.begun_sums(columns)
        rows = self.planes * shape.kernel[0]
        with T.serial(0, rows) as row:
            plane, own = (
                (row // shape.kernel[0], row % shape.kernel[0]) if self.planes > 1 else (0, row)
            )
            for column in range(self.columns):
                vectors = [
                    load(plane, own, column, source + 4 * lanes * i)
                    for i in range(self.packing.quads)
                ]
                self._column(vectors, sums, block, row, column)
        for pixel in range(self.pixels):
            values = []
            for quad in range(self.packing.quads):
                four = range(4 * quad, 4 * quad + 4)
                found = [sums[pixel * outputs + j] for j in four]
                narrow = self.narrowed(found, [columns[j] for j in four])
                values.append(intrin.transpose_words(narrow))
            if self.packing.quads == 2:
                values = intrin.scatter_words(*values)
            for i, value in enumerate(values):
                self.put(value, at, x + pixel, channel + 4 * lanes * i)

    def _column(self, words: list, sums: Registers, block, row, column: int) -> None:
        """Emit the products of one column of the window, which has `words`, in one row of taps."""
        axis = self.shape.columns
        taps = [(pixel, column - pixel * axis.stride) for pixel in range(self.pixels)]
        uses = [
            (pixel, tap // axis.dilation)
            for pixel, tap in taps
            if tap % axis.dilation == 0 and 0 <= tap < axis.span
        ]
        if self.packing.quads == 2:
            words = intrin.gather_words(*words)
        for pixel, tap in uses:
            for number, word in enumerate(words):
                for j in range(self.packing.outputs):
                    i = pixel * self.packing.outputs + j
                    sums[i] = self._accumulated(sums[i], word, [block, row, tap, number, j])

    def _accumulated(self, acc, word, at: list):
        lanes, address = self.lanes, tirx.address_of(self.weight[(*at, 0, 0)])
        if not self.summed:
            return intrin.dot_in_memory(acc, word, address, lanes)
        found = intrin.byte_products_in_memory(word, address, lanes)
        return intrin.accumulate_sums(acc, found, lanes)
