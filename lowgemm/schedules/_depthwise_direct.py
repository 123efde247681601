"""Depthwise convolution that reads the image where it lies: what is multiplied is interleaved in registers.

for row, tile of pixels:
  for block of channels:
    for pair of taps:                     interleave two vectors of bytes; widen; one dot product for each pixel
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
from lowgemm.tiling import SERIAL_MACS, direct_depthwise_takes, unstaged_stores
from lowgemm.topi import OutputForm


def qdepthwise_direct(
    shape: ConvShape,
    packing: DirectDepthwisePacking,
    in_dtype: str,
    output: OutputForm,
    target: CpuTarget,
) -> tvm.tirx.PrimFunc:
    """`topi.qdepthwise2d` for as many outputs as inputs, uint8 or int8, without a residual or a table.

    Arguments as of `UnstagedKernel`, the weight as `packing` has it, columns `(blocks, 4, chunks, 4)`.
    """
    assert direct_depthwise_takes(shape, target) and unstaged_stores(**asdict(output))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        function_attributes()
        _Kernel(shape, packing, in_dtype, output, target).rows(SERIAL_MACS // 4)
    return builder.get()


class _Kernel(UnstagedKernel):
    def __init__(
        self,
        shape: ConvShape,
        packing: DirectDepthwisePacking,
        in_dtype: str,
        output: OutputForm,
        target: CpuTarget,
    ) -> None:
        self.packing, order = packing, packing.order
        self.dot = intrin.word_dot(target)
        blocks = order.blocks(shape.out_channels)
        held = (blocks, 4, order.chunks, 4)
        pairs = shape.planes.kernel * len(packing.taps)
        weight = (blocks, pairs, *held[1:], 2), "int16"
        tiles = (packing.pixels, order, held, True)
        super().__init__(shape, in_dtype, output, weight, *tiles)

    def block_tile(self, load: Callable, block, at: list, x) -> None:
        channel = self.first(block)
        sums = self.zeroed_sums(self.pixels * 4)
        if self.planes == 1:
            self._plane(load, sums, block, channel, 0)
        else:
            with T.serial(0, self.planes) as plane:
                self._plane(load, sums, block, channel, plane)
        columns = [(block, j, 0, T.ramp(0, 1, self.lanes)) for j in range(4)]
        for pixel in range(self.pixels):
            four = [sums[4 * pixel + j] for j in range(4)]
            self.put(self.narrowed(four, columns), at, x + pixel, channel)

    def _plane(self, load: Callable, sums: Registers, block, channel, plane) -> None:
        lanes = self.lanes
        for step in self.packing.steps:
            vectors = intrin.interleave_pair(
                load(plane, *step.first, channel), load(plane, *step.second, channel)
            )
            for pixel, pair in step.uses:
                for j, vector in enumerate(vectors):
                    number = plane * len(self.packing.taps) + pair
                    at = (block, number, j, 0, 0, T.ramp(0, 1, 2 * lanes))
                    i = 4 * pixel + j
                    sums[i] = self.dot(sums[i], vector, self.weight[at])
