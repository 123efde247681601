"""Depthwise convolution that reads the image where it lies: what is multiplied is interleaved in registers.

for row of pixels (parallel):
  for tile of pixels:
    if their window sticks out of the image: copy it, with what lies outside
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
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from lowgemm import intrin
from lowgemm.packing import FLAT, ConvShape, DirectDepthwisePacking
from lowgemm.schedules._panels import Registers, function_attributes
from lowgemm.targets import CpuTarget
from lowgemm.tiling import SERIAL_MACS, direct_depthwise_stores, direct_depthwise_takes
from lowgemm.topi import OutputForm, OutputStage


def qdepthwise_direct(
    shape: ConvShape,
    packing: DirectDepthwisePacking,
    in_dtype: str,
    output: OutputForm,
    target: CpuTarget,
) -> tvm.tirx.PrimFunc:
    """`topi.qdepthwise2d` for as many outputs as inputs, uint8 or int8, without a residual or a table.

    Arguments in order: data `(batch, [depth,] height, width, channels)`; weight as `packing` has it; pad int32 `(1,)`;
    those of the output stage (columns: `(blocks, 4, chunks, 4)`); dst `(batch, [od,] oh, ow, channels)`. int8 data
    count as 128 more, as the offset knows.
    """
    assert direct_depthwise_takes(shape, target) and direct_depthwise_stores(**asdict(output))
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        function_attributes()
        _Kernel(shape, packing, in_dtype, output, target).rows()
    return builder.get()


class _Kernel:
    def __init__(
        self,
        shape: ConvShape,
        packing: DirectDepthwisePacking,
        in_dtype: str,
        output: OutputForm,
        target: CpuTarget,
    ) -> None:
        self.shape, self.packing = shape, packing
        self.dot = intrin.word_dot(target)
        self.order = packing.order
        self.blocks = self.order.blocks(shape.out_channels)
        self.lanes = packing.layout.lanes
        self.width = 4 * self.lanes
        self.flips = in_dtype == "int8"
        self.planes = shape.planes.kernel
        solid = shape.planes != FLAT
        deep = (shape.planes.size,) if solid else ()
        held = (self.blocks, 4, self.order.chunks, 4)
        pairs = self.planes * len(packing.taps)

        def declare(dims: tuple, dtype: str, name: str):
            return T.arg(name, T.buffer(dims, dtype))

        data = (shape.batch, *deep, shape.height, shape.width, shape.in_channels)
        self.data = declare(data, in_dtype, name="data")
        self.weight = declare((self.blocks, pairs, *held[1:], 2), "int16", name="weight")
        self.pad = declare((1,), "int32", name="pad")
        out_deep = (shape.planes.out,) if solid else ()
        out = (shape.batch, *out_deep, shape.out_height, shape.out_width, shape.out_channels)
        self.stage = OutputStage(output, held, (), out, packs=True, declare=declare)
        self.dst = declare(out, output.dtype, name="dst")
        self.extents = out[:-2]

    def rows(self) -> None:
        """Emit the loop over rows of output."""
        shape = self.shape
        count = shape.out_images * shape.out_height
        across = T.parallel if shape.macs >= SERIAL_MACS // 4 and count > 1 else T.serial
        with across(0, count) as row:
            at, rest = [], row
            for extent in reversed(self.extents):
                at.insert(0, rest % extent)
                rest = rest // extent
            self._row(at)

    def _row(self, at: list) -> None:
        """Emit the tiles of the row `at`: (image, [plane,] row)."""
        shape, axes = self.shape, [self.shape.rows]
        if len(at) == 3:
            axes.insert(0, shape.planes)
        # Where the window begins in the image.
        first = [i * axis.stride - axis.before for i, axis in zip(at[1:], axes, strict=True)]
        inside = []
        for begin, axis in zip(first, axes, strict=True):
            last = (axis.out - 1) * axis.stride - axis.before
            inside += _within(begin, last, axis.span, axis)
        copied = T.alloc_buffer(
            (self.planes, *self._window, self.blocks * self.width), self.data.ty.dtype
        )
        columns = shape.columns
        pixels = self.packing.pixels
        tiles = -(-shape.out_width // pixels)
        with T.serial(0, tiles) as tile:
            x = tirx.min(tile * pixels, shape.out_width - pixels)
            left = x * columns.stride - columns.before
            last = (shape.out_width - pixels) * columns.stride - columns.before
            conditions = [*inside, *_within(left, last, self.packing.columns, columns)]

            def of_image(plane, row: int, column: int, channel):
                begin = [*first[:-1], first[-1] + row, left + column]
                if len(at) == 3:
                    begin[0] = begin[0] + plane * shape.planes.dilation
                return self._load(self.data, [at[0], *begin], channel)

            def of_copy(plane, row: int, column: int, channel):
                return self._load(copied, [plane, row, column], channel)

            if not conditions:
                self._tile(of_image, at, x)
                return
            with T.If(tirx.all(*conditions)):
                with T.Then():
                    self._tile(of_image, at, x)
                with T.Else():
                    self._copy(copied, at, first, left)
                    self._tile(of_copy, at, x)

    @property
    def _window(self) -> tuple[int, int]:
        return self.shape.kernel[0], self.packing.columns

    def _copy(self, copied, at: list, first: list, left) -> None:
        """Emit the copy of a window that sticks out."""
        shape = self.shape
        outside = tirx.Broadcast(self.pad[0].astype(self.data.ty.dtype), self.width)
        with (
            T.serial(0, self.planes) as plane,
            T.serial(0, self._window[0]) as row,
            T.serial(0, self._window[1]) as column,
        ):
            y, x = first[-1] + row, left + column
            begin, inside = [y, x], [y >= 0, y < shape.height, x >= 0, x < shape.width]
            if len(at) == 3:
                z = first[0] + plane * shape.planes.dilation
                begin.insert(0, z)
                inside += [z >= 0, z < shape.planes.size]
            place = [plane, row, column]
            with T.If(tirx.all(*inside)):
                with T.Then(), T.serial(0, self.blocks) as block:
                    channels = self._channels(block)
                    value = self.data[(at[0], *begin, channels)]
                    T.buffer_store(copied, value, [*place, channels])
                with T.Else(), T.serial(0, self.blocks) as block:
                    channels = T.ramp(block * self.width, 1, self.width)
                    T.buffer_store(copied, outside, [*place, channels])

    def _channels(self, block):
        return T.ramp(self._first(block), 1, self.width)

    def _first(self, block):
        return self.order.first(block, self.shape.out_channels, tirx.min)

    def _load(self, buffer, at: list, channel):
        """A vector of bytes."""
        value = buffer[(*at, T.ramp(channel, 1, self.width))]
        if not self.flips:
            return value
        bits = tirx.reinterpret(f"uint8x{self.width}", value)
        return bits ^ tirx.Broadcast(tirx.const(128, "uint8"), self.width)

    def _tile(self, load: Callable, at: list, x) -> None:
        """Emit the tile at column `x` of a row, for all channels."""
        with T.serial(0, self.blocks) as block:
            channel = self._first(block)
            sums = Registers(self.packing.pixels * 4, self.lanes, "int32")
            for i in range(len(sums)):
                sums[i] = tirx.Broadcast(tirx.const(0, "int32"), self.lanes)
            if self.planes == 1:
                self._plane(load, sums, block, channel, 0)
            else:
                with T.serial(0, self.planes) as plane:
                    self._plane(load, sums, block, channel, plane)
            for pixel in range(self.packing.pixels):
                codes = []
                for j in range(4):
                    column = (block, j, 0, T.ramp(0, 1, self.lanes))
                    codes.append(self.stage.capped(sums[4 * pixel + j], column))
                value = intrin.narrow(codes, self.dst.ty.dtype)
                if self.stage.floor is not None:
                    value = tirx.max(value, tirx.Broadcast(self.stage.floor, self.width))
                T.buffer_store(self.dst, value, [*at, x + pixel, T.ramp(channel, 1, self.width)])

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


def _within(begin, last: int, span: int, axis) -> list:
    """The conditions that a window on `axis`, which begins at `begin` or `last` at most, does not stick out."""
    found = []
    if axis.before > 0:
        found.append(begin >= 0)
    if last + span > axis.size:
        found.append(begin + span <= axis.size)
    return found
