"""Convolution kernels that read the image where it lies, copying windows that stick out of it; or, where many do and it
is small, a copy of the image with its border.

for row of pixels (parallel):
  for part of the channels:
    for tile of pixels:
      if their window sticks out of the image: copy it, with what lies outside
      where image and outputs are far: prefetch what later tiles read and write
      what the kernel makes of the window

for image, part of the channels (parallel):
  copy them, with what lies outside
  for tile of pixels:
    as above, of the copy
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from lowgemm import intrin
from lowgemm.packing import FLAT, ConvShape, DepthwisePacking, GroupedPacking
from lowgemm.schedules._panels import Registers
from lowgemm.schedules._prefetch import READING, WRITING, prefetch_share
from lowgemm.tiling import unstaged_prefetches
from lowgemm.topi import OutputForm, OutputStage


class UnstagedKernel(ABC):
    """A function that is being built, of NHWC or NDHWC activations, uint8 or int8.

    Channels are in blocks, and a tile is `pixels` side by side, of all blocks before the next one if it is computed
    `whole`, else of one block for a row of tiles. Images are `copied` so many blocks at a time, or not (0).

    Arguments in order: data `(batch, [depth,] height, width, in_channels)`; weight, of a shape and a dtype; pad int32
    `(1,)`; those of the output stage (columns: `held`); dst `(batch, [od,] oh, ow, out_channels)`. int8 data count as
    128 more, as the offset knows.
    """

    def __init__(
        self,
        shape: ConvShape,
        in_dtype: str,
        output: OutputForm,
        weight: tuple[tuple[int, ...], str],
        pixels: int,
        order: DepthwisePacking | GroupedPacking,
        held: tuple[int, ...],
        whole: bool,
        copied: int = 0,
    ) -> None:
        self.shape, self.pixels, self.order, self.copied = shape, pixels, order, copied
        self.lanes, self.width = order.layout.lanes, order.channels
        self.blocks = held[0]
        self.together = copied or (self.blocks if whole else 1)
        self.fetches = whole and copied in (0, self.blocks) and unstaged_prefetches(shape)
        self.flips = in_dtype == "int8"
        self.planes = shape.planes.kernel
        solid = shape.planes != FLAT
        self.axes = [*([shape.planes] if solid else []), shape.rows, shape.columns]
        deep = (shape.planes.size,) if solid else ()

        def declare(dims: tuple, dtype: str, name: str):
            return T.arg(name, T.buffer(dims, dtype))

        data = (shape.batch, *deep, shape.height, shape.width, shape.in_channels)
        self.data = declare(data, in_dtype, name="data")
        self.weight = declare(*weight, name="weight")
        self.pad = declare((1,), "int32", name="pad")
        out_deep = (shape.planes.out,) if solid else ()
        out = (shape.batch, *out_deep, shape.out_height, shape.out_width, shape.out_channels)
        self.stage = OutputStage(output, held, (), out, packs=True, begun=True, declare=declare)
        self.dst = declare(out, output.dtype, name="dst")
        self.extents = out[:-2]

    @abstractmethod
    def block_tile(self, load: Callable, source, block, at: list, x) -> None:
        """Emit the tile at column `x` of the row `at`, (image, [plane,] row), for a block.

        `load(plane, row, column, channel)` is a vector of bytes of the window: `row` counts taps, `column` pixels, and
        those of the block begin at the channel `source`.
        """

    def rows(self, serial_macs: int) -> None:
        """Emit the loop over rows of output, or over images that are copied, which threads share unless there are fewer
        than `serial_macs`."""
        shape = self.shape
        if self.copied:
            self._images(serial_macs)
            return
        count = shape.out_images * shape.out_height
        across = T.parallel if shape.macs >= serial_macs and count > 1 else T.serial
        with across(0, count) as row:
            at, rest = [], row
            for extent in reversed(self.extents):
                at.insert(0, rest % extent)
                rest = rest // extent
            if self.together == self.blocks:
                self._row(at, 0, 0)
            else:
                with T.serial(0, self.blocks) as block:
                    self._row(at, block, self.first(block))

    def _images(self, serial_macs: int) -> None:
        """Emit the loop over images, and parts of their channels, that are copied with their border first."""
        shape, columns, pixels = self.shape, self.shape.columns, self.pixels
        parts = self.blocks // self.copied
        tasks = shape.batch * parts
        sizes = [axis.covered for axis in self.axes]
        flat = [1] if len(sizes) == 2 else []
        held = (*flat, *sizes, min(self.copied * self.width, shape.out_channels))
        first = [-axis.before for axis in self.axes]
        across = T.parallel if shape.macs >= serial_macs and tasks > 1 else T.serial
        with across(0, tasks) as task:
            image, block = task // parts, task % parts * self.copied
            origin = self.first(block)
            copied = T.alloc_buffer(held, self.data.ty.dtype)
            self._copy(copied, image, first, (1, 1), block, origin)
            with (
                T.serial(0, shape.planes.out) as z,
                T.serial(0, shape.out_height) as y,
                T.serial(0, -(-shape.out_width // pixels)) as tile,
            ):
                x = tirx.min(tile * pixels, shape.out_width - pixels)

                def of_copy(plane, row, column: int, channel):
                    at = [
                        z * shape.planes.stride + plane * shape.planes.dilation,
                        y * shape.rows.stride + row * shape.rows.dilation,
                        x * columns.stride + column,
                    ]
                    return self._load(copied, at, channel)

                at = [image, y] if flat else [image, z, y]
                self._tile(of_copy, origin, block, at, x)

    def _row(self, at: list, block, origin) -> None:
        """Emit the tiles of the row `at`, for the blocks from `block` on, which begin at the channel `origin`."""
        shape, axes = self.shape, self.axes[:-1]
        # Where the window begins in the image.
        first = [i * axis.stride - axis.before for i, axis in zip(at[1:], axes, strict=True)]
        inside = []
        for begin, axis in zip(first, axes, strict=True):
            last = (axis.out - 1) * axis.stride - axis.before
            inside += _within(begin, last, axis.span, axis)
        columns, pixels = shape.columns, self.pixels
        held = (self.planes, shape.kernel[0], self.columns, self.together * self.width)
        copied = T.alloc_buffer(held, self.data.ty.dtype)
        with T.serial(0, -(-shape.out_width // pixels)) as tile:
            x = tirx.min(tile * pixels, shape.out_width - pixels)
            left = x * columns.stride - columns.before
            last = (shape.out_width - pixels) * columns.stride - columns.before
            conditions = [*inside, *_within(left, last, self.columns, columns)]

            def of_image(plane, row, column: int, channel):
                begin = [*first[:-1], first[-1] + row * shape.rows.dilation, left + column]
                if len(at) == 3:
                    begin[0] = begin[0] + plane * shape.planes.dilation
                return self._load(self.data, [at[0], *begin], channel)

            def of_copy(plane, row, column: int, channel):
                return self._load(copied, [plane, row, column], channel)

            if not conditions:
                self._tile(of_image, 0, block, at, x)
                return
            with T.If(tirx.all(*conditions)):
                with T.Then():
                    self._tile(of_image, 0, block, at, x)
                with T.Else():
                    taps = shape.planes.dilation, shape.rows.dilation
                    self._copy(copied, at[0], [*first, left], taps, block, origin)
                    self._tile(of_copy, origin, block, at, x)

    def _tile(self, load: Callable, origin, block, at: list, x) -> None:
        with T.serial(0, self.together) as number:
            if self.fetches:
                self._fetch(number, at, x)
            source = self.first(block + number) - origin
            self.block_tile(load, source, block + number, at, x)

    def _fetch(self, number, at: list, x) -> None:
        """Emit one block's share of the prefetches of a tile that is computed whole.

        The next row of tiles reads rows of the image that this one does not; four columns more are never too late. Of
        an image that is copied, the next one is what is read. A store to a line that is not there holds up those behind
        it, so lines are asked for eight pixels before.
        """
        (image, row), shape = at, self.shape
        rows, columns = shape.rows, shape.columns
        top, left = row * rows.stride, x * columns.stride
        if self.copied:
            source = image + 1
        else:
            source, top, left = image, top - rows.before + rows.span, left + 4
        read = self.pixels * columns.stride * shape.in_channels
        for ahead in range(rows.stride):
            begin = [source, top + ahead, left, 0]
            prefetch_share(self.data, begin, read, number, self.together, READING)
        written = self.pixels * shape.out_channels
        prefetch_share(self.dst, [image, row, x + 8, 0], written, number, self.together, WRITING)

    @property
    def columns(self) -> int:
        """The width of a tile's window."""
        columns = self.shape.columns
        return (self.pixels - 1) * columns.stride + columns.span

    def _copy(self, copied, image, first: list, steps: tuple[int, int], block, origin) -> None:
        """Emit the copy of a part of an image, with what lies outside, that begins at `first` of it, and takes planes
        and rows so many `steps` apart."""
        shape = self.shape
        outside = tirx.Broadcast(self.pad[0].astype(self.data.ty.dtype), self.width)
        planes, rows, columns, _ = copied.shape
        with (
            T.serial(0, planes) as plane,
            T.serial(0, rows) as row,
            T.serial(0, columns) as column,
        ):
            y, x = first[-2] + row * steps[1], first[-1] + column
            begin, inside = [y, x], [y >= 0, y < shape.height, x >= 0, x < shape.width]
            if len(first) == 3:
                z = first[0] + plane * steps[0]
                begin.insert(0, z)
                inside += [z >= 0, z < shape.planes.size]

            def copy(make: Callable) -> None:
                with T.serial(0, self.together) as number:
                    channel = self.first(block + number)
                    place = [plane, row, column, T.ramp(channel - origin, 1, self.width)]
                    T.buffer_store(copied, make(T.ramp(channel, 1, self.width)), place)

            with T.If(tirx.all(*inside)):
                with T.Then():
                    copy(lambda channels: self.data[(image, *begin, channels)])
                with T.Else():
                    copy(lambda _: outside)

    def _load(self, buffer, at: list, channel):
        """A vector of bytes."""
        size = 4 * self.lanes
        value = buffer[(*at, T.ramp(channel, 1, size))]
        if not self.flips:
            return value
        bits = tirx.reinterpret(f"uint8x{size}", value)
        return bits ^ tirx.Broadcast(tirx.const(128, "uint8"), size)

    def first(self, block):
        """The first channel of a block."""
        return self.order.first(block, self.shape.out_channels, tirx.min)

    def begun_sums(self, columns: list) -> Registers:
        """The sums of a tile's pixels of some vectors, the output stage's `columns`, before anything is added."""
        sums = Registers(self.pixels * len(columns), self.lanes, "int32")
        for pixel in range(self.pixels):
            for i, column in enumerate(columns, pixel * len(columns)):
                sums[i] = self.stage.offset(column)
        return sums

    def narrowed(self, sums: list, columns: list):
        """The codes of four vectors of sums, of the output stage's `columns`, as one vector of bytes, packed."""
        codes = [self.stage.capped(*each) for each in zip(sums, columns, strict=True)]
        value = intrin.narrow(codes, self.dst.ty.dtype)
        if self.stage.floor is None:
            return value
        return tirx.max(value, tirx.Broadcast(self.stage.floor, 4 * self.lanes))

    def put(self, value, at: list, x, channel) -> None:
        """Emit the store of a vector of bytes."""
        T.buffer_store(self.dst, value, [*at, x, T.ramp(channel, 1, 4 * self.lanes)])


def _within(begin, last: int, span: int, axis) -> list:
    """The conditions that a window on `axis`, which begins at `begin` or `last` at most, does not stick out."""
    found = []
    if axis.before > 0:
        found.append(begin >= 0)
    if last + span > axis.size:
        found.append(begin + span <= axis.size)
    return found
