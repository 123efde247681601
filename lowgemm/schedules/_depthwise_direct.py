"""Depthwise convolution that reads the image where it lies: what is multiplied is interleaved in registers.

for row, tile of pixels, or of an image that is copied first:
  for block of channels:
    for as many of its four vectors of sums as registers hold, for all pixels:
      for word of taps:                   interleave vectors of bytes; one dot product for each pixel
    requantize four vectors to one, in order

All channels of a pixel are read together, as they lie in memory, and each row is read for as many rows of output as it
belongs to: in between it stays in the second cache. Kernels that interleave rows beforehand (`_depthwise`) compute with
fewer instructions where output rows share much, and wait for memory where an image is large.
"""

from collections.abc import Callable
from dataclasses import asdict

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from lowgemm import intrin
from lowgemm.packing import ConvShape, DirectDepthwisePacking
from lowgemm.schedules._panels import Registers, function_attributes
from lowgemm.schedules._unstaged import UnstagedKernel
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    SERIAL_MACS,
    DirectDepthwiseConfig,
    check_direct_depthwise_config,
    unstaged_stores,
)
from lowgemm.topi import OutputForm


def qdepthwise_direct(
    shape: ConvShape,
    packing: DirectDepthwisePacking,
    in_dtype: str,
    output: OutputForm,
    target: CpuTarget,
    config: DirectDepthwiseConfig,
) -> tvm.tirx.PrimFunc:
    """`topi.qdepthwise2d` for as many outputs as inputs, uint8 or int8, without a residual or a table.

    Arguments as of `UnstagedKernel`, the weight as `packing` has it, columns `(blocks, 4, chunks, 4)`.

    Raises:
        ValueError: the configuration does not fit the shape, or the shape has no such kernel.
    """
    check_direct_depthwise_config(shape, target, config)
    assert unstaged_stores(**asdict(output))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        function_attributes()
        _Kernel(shape, packing, in_dtype, output, target, config).rows(SERIAL_MACS // 4)
    return builder.get()


class _Kernel(UnstagedKernel):
    def __init__(
        self,
        shape: ConvShape,
        packing: DirectDepthwisePacking,
        in_dtype: str,
        output: OutputForm,
        target: CpuTarget,
        config: DirectDepthwiseConfig,
    ) -> None:
        self.packing, order = packing, packing.order
        self.dot = intrin.word_dot(target, packing.layout.lanes)
        blocks = order.blocks(shape.out_channels)
        held = (blocks, 4, order.chunks, 4)
        words, layout = shape.planes.kernel * len(packing.taps), packing.layout
        weight = (blocks, words, *held[1:], layout.depth), layout.rhs
        tiles = (packing.pixels, order, held, True)
        super().__init__(shape, in_dtype, output, weight, *tiles, config.copied)
        # Beside four sums for each of several pixels registers do not hold what is multiplied.
        self.parts = 2 if packing.pixels > 1 else 1

    def block_tile(self, load: Callable, source, block, at: list, x) -> None:
        channel = self.first(block)
        each = 4 // self.parts
        sums = [
            self._sums(load, source, block, range(first, first + each))
            for first in range(0, 4, each)
        ]
        columns = self._columns(block, range(4))
        for pixel in range(self.pixels):
            four = [part[each * pixel + j] for part in sums for j in range(each)]
            self.put(self.narrowed(four, columns), at, x + pixel, channel)

    def _columns(self, block, vectors: range) -> list:
        return [(block, j, 0, T.ramp(0, 1, self.lanes)) for j in vectors]

    def _sums(self, load: Callable, source, block, vectors: range) -> Registers:
        """Emit the sums of each pixel in some of a block's four vectors."""
        if vectors.start > 0:
            # LLVM would else take what it loaded for the vectors before, from where it had to put it.
            source = T.bind(source + (intrin.opaque(self.pad[0]) - self.pad[0]))
        sums = self.begun_sums(self._columns(block, vectors))
        if self.planes == 1:
            self._plane(load, source, sums, block, vectors, 0)
        else:
            with T.serial(0, self.planes) as plane:
                self._plane(load, source, sums, block, vectors, plane)
        return sums

    def _plane(self, load: Callable, source, sums: Registers, block, vectors: range, plane) -> None:
        lanes, depth = self.lanes, self.packing.layout.depth
        for step in self.packing.steps:
            each = [at and load(plane, *at, source) for at in step.positions]
            words = intrin.interleave_words(each)
            for pixel, word in step.uses:
                for i, j in enumerate(vectors, pixel * len(vectors)):
                    number = plane * len(self.packing.taps) + word
                    at = (block, number, j, 0, 0, T.ramp(0, 1, depth * lanes))
                    total = self.dot(sums[i], words[j], self.weight[at])
                    # Nor is it to add up in an order of its own, with partial sums for which there are no registers.
                    sums[i] = intrin.opaque(total) if self.parts > 1 else total
