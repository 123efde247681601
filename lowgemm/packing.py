"""Weight layouts of the dot-product kernels: what a kernel reads, packed once at compile time.

A convolution's weights become `[group][panel][tap][depth/d][lane][d]`: a panel is the `lanes` output channels of one
vector, a tap one row (or one point) of the filter window, and `d` the products that one instruction sums. One vector
load then feeds one instruction, and the panels are read front to back.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from lowgemm.quant import pair_words, sums_fit
from lowgemm.targets import CpuTarget


@dataclass(frozen=True)
class DotLayout:
    """The operand form of a kernel family: `lanes` outputs a vector, `depth` products a lane, operand dtypes.

    `step` is how many elements of the reduction an instruction takes, if that is more than `depth`.
    """

    lanes: int
    depth: int
    lhs: str
    rhs: str
    step: int = 0


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution: `size` elements between `before` and `after` of padding.

    Padding may be negative: then the input loses elements at that end.
    """

    size: int = 1
    kernel: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    @property
    def span(self) -> int:
        """Input elements from the first tap of a window to the last."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def out(self) -> int:
        """The output's extent."""
        return (self.size + self.before + self.after - self.span) // self.stride + 1

    @property
    def covered(self) -> int:
        """Elements that the windows of all outputs cover, padding included."""
        return (self.out - 1) * self.stride + self.span

    @property
    def useful_taps(self) -> range:
        """The taps that count: from the first to the last that lies on the input, not on padding, for some output.

        Padding is what counts as zero, so the others add nothing. Where none lies on the input, it is the first.
        """
        inside = [k for k in range(self.kernel) if self._meets(k)]
        return range(inside[0], inside[-1] + 1) if inside else range(1)

    def _meets(self, tap: int) -> bool:
        start = tap * self.dilation - self.before
        output = max(0, -(start // self.stride))  # the first that finds it not before the input
        return output < self.out and output * self.stride + start < self.size

    def run(self, first: int, count: int) -> "Axis":
        """The axis of `count` of its outputs, from `first` on."""
        before = self.before - first * self.stride
        after = (count - 1) * self.stride + self.span - self.size - before
        return replace(self, before=before, after=after)

    def cut(self, taps: range) -> "Axis":
        """The axis of the same outputs with `taps` alone, which follow each other."""
        surplus = self.kernel - taps.stop
        return replace(
            self,
            kernel=len(taps),
            before=self.before - taps.start * self.dilation,
            after=self.after - surplus * self.dilation,
            dilation=self.dilation if len(taps) > 1 else 1,
        )


# Of a convolution in two dimensions.
FLAT = Axis()


def dot_layout(target: CpuTarget, lanes: int) -> DotLayout:
    """The operand form of `target`'s dot product with `lanes` outputs a vector: u8 by s8, or both widened."""
    if target.dot_depth == 4:
        return DotLayout(lanes, 4, "uint8", "int8", 4 * target.summed)
    return DotLayout(lanes, 2, "int16", "int16")


@dataclass(frozen=True)
class ConvShape:
    """A convolution over NHWC activations, or over NDHWC ones, whose depth axis is `planes`.

    `padding` is (top, left, bottom, right), as in `Axis`; all sizes in elements.
    """

    batch: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    planes: Axis = FLAT

    @property
    def rows(self) -> Axis:
        """The vertical axis."""
        top, _, bottom, _ = self.padding
        return Axis(self.height, self.kernel[0], self.strides[0], top, bottom, self.dilations[0])

    @property
    def columns(self) -> Axis:
        """The horizontal axis."""
        _, left, _, right = self.padding
        return Axis(self.width, self.kernel[1], self.strides[1], left, right, self.dilations[1])

    @property
    def out_height(self) -> int:
        return self.rows.out

    @property
    def out_width(self) -> int:
        return self.columns.out

    @property
    def out_images(self) -> int:
        """Images of `out_height` by `out_width` that the output consists of."""
        return self.batch * self.planes.out

    @property
    def taps(self) -> int:
        """Positions of the filter window."""
        return self.planes.kernel * self.kernel[0] * self.kernel[1]

    @property
    def joined(self) -> bool:
        """Whether a filter of one tap takes only some pixels: dense kernels copy these, of an image to one row."""
        return self.taps == 1 and (self.planes.stride, *self.strides) != (1, 1, 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows of pixels of an output image, and pixels of a row, as dense kernels compute them."""
        pixels = self.out_height, self.out_width
        return (1, pixels[0] * pixels[1]) if self.joined else pixels

    @property
    def inputs(self) -> int:
        """Elements of the input."""
        return self.batch * self.planes.size * self.height * self.width * self.in_channels

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return self.out_images * self.out_height * self.out_width * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.outputs * self.taps * self.in_channels // self.groups


# In runs of so many words, and from so large a share of them on, pairs make up for a loop over the others. The most are
# those that begin at a byte of which the number has 16 bits.
_FEWEST_WORDS, _MOST_WORDS = 8, 2**14
_SHARE_OF_PAIRS = 0.6
_TILES_LOOKED_AT = 4


def enough_pairs(places: np.ndarray) -> bool:
    """Whether so many words are in pairs, as `places` of `ConvPacking.pair` say, that these pay."""
    words = places.shape[-1] - 1
    return bool(2 * places[..., -1].mean() >= _SHARE_OF_PAIRS * words)


@dataclass(frozen=True)
class ConvPacking:
    """How a convolution's filter is cut for a dot-product kernel.

    With one group and no dilation along the width, a row of the filter window is one contiguous run of
    `kernel_w * in_channels` activations in NHWC, so `taps` counts rows; otherwise every point is a tap of its own.
    `merged` groups share one dense block (zeros outside the diagonal) so that a block fills whole vectors. In three
    dimensions the rows of all planes of the window are counted together, planes outside.
    """

    layout: DotLayout
    groups: int
    merged: int
    group_in: int
    group_out: int
    tap_rows: int
    tap_cols: int
    run: int

    @staticmethod
    def of(shape: ConvShape, layout: DotLayout) -> "ConvPacking":
        """The cut of `shape`'s filter for `layout`."""
        merged = 1
        if shape.groups > 1:
            group_out = shape.out_channels // shape.groups
            while (merged * group_out) % layout.lanes and merged < shape.groups:
                merged += 1
                while shape.groups % merged:
                    merged += 1
        groups = shape.groups // merged
        group_in = shape.in_channels // groups
        flat = groups == 1 and shape.dilations[1] == 1
        return ConvPacking(
            layout=layout,
            groups=groups,
            merged=merged,
            group_in=group_in,
            group_out=shape.out_channels // groups,
            tap_rows=shape.planes.kernel * shape.kernel[0],
            tap_cols=1 if flat else shape.kernel[1],
            run=shape.kernel[1] * group_in if flat else group_in,
        )

    @property
    def panels(self) -> int:
        """Vectors of outputs over all groups."""
        return self.groups * -(-self.group_out // self.layout.lanes)

    @property
    def padded_run(self) -> int:
        """`run` rounded up to whole instructions; the rest meets zero weights."""
        step = self.layout.step or self.layout.depth
        return -(-self.run // step) * step

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """`(panels, tap_rows, tap_cols, padded_run / depth, lanes, depth)`."""
        lanes, depth = self.layout.lanes, self.layout.depth
        return (self.panels, self.tap_rows, self.tap_cols, self.padded_run // depth, lanes, depth)

    def pack(self, weight: np.ndarray, zeros: np.ndarray | None = None) -> np.ndarray:
        """Pack `weight` `(out, in / groups, [kernel_d,] kernel_h, kernel_w)` into `packed_shape`, same dtype.

        `zeros` `(out,)` are the weights that stand for 0, which merged groups have outside the diagonal.
        """
        _, per_group, *_, kernel_w = weight.shape
        dense = np.zeros(
            (self.groups, self.group_out, self.tap_rows, kernel_w, self.group_in), weight.dtype
        )
        if zeros is not None:
            dense += zeros.astype(weight.dtype).reshape(self.groups, self.group_out, 1, 1, 1)
        each_out = self.group_out // self.merged
        taps = (self.tap_rows, kernel_w)
        blocks = weight.reshape(self.groups, self.merged, each_out, per_group, *taps)
        for m in range(self.merged):
            dense[
                :, m * each_out : (m + 1) * each_out, :, :, m * per_group : (m + 1) * per_group
            ] = blocks[:, m].transpose(0, 1, 3, 4, 2)
        outputs = self.panels // self.groups * self.layout.lanes
        padded = np.zeros(
            (self.groups, outputs, self.tap_rows, self.tap_cols, self.padded_run), weight.dtype
        )
        padded[:, : self.group_out, :, :, : self.run] = dense.reshape(
            self.groups, self.group_out, self.tap_rows, self.tap_cols, self.run
        )
        lanes, depth = self.layout.lanes, self.layout.depth
        split = padded.reshape(
            self.groups, -1, lanes, self.tap_rows, self.tap_cols, self.padded_run // depth, depth
        )
        return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 5, 2, 6)).reshape(self.packed_shape)

    def sums_fit(self, packed: np.ndarray) -> bool:
        """Whether the layout's sums of 16 bits hold all products of `packed` weights (see `quant.sums_fit`)."""
        lanes_first = np.moveaxis(packed, -2, 0)
        runs = lanes_first.reshape(-1, self.padded_run)
        return sums_fit(runs, self.layout.step // self.layout.depth)

    def pair(
        self, packed: np.ndarray, vectors: int, alike: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Panels that fit (`sums_fit`) with the words of each tile of `vectors` of them in an order of its own: pairs
        that may be summed in 16 bits come first.

        The second array says at which byte of the run each word begins, and at the end how many pairs there are: uint16
        `(tiles, tap_rows, tap_cols, words + 1)`, so a run has at most 65536 bytes. If all orders are to be `alike`,
        each has as many pairs as the one with the fewest.
        """
        tiles = len(packed) // vectors
        split = packed.reshape(tiles, vectors, *self.packed_shape[1:])
        words = split.shape[4]
        # The sums of one sign of the first two and of the last two weights of four.
        halves = split.astype(np.int16).reshape(*split.shape[:-1], 2, 2)
        signs = [np.maximum(values, 0).sum(-1) for values in (halves, -halves)]
        sums = np.stack(signs, -1).transpose(0, 2, 3, 4, 1, 5, 6, 7)
        order, pairs = pair_words(sums.reshape(tiles * self.tap_rows * self.tap_cols, words, -1))
        if alike:
            pairs[:] = pairs.min()
        shape = (tiles, self.tap_rows, self.tap_cols)
        moved = order.reshape(tiles, 1, self.tap_rows, self.tap_cols, words, 1, 1)
        starts = order * self.layout.depth
        places = np.concatenate([starts, pairs[:, None]], 1, dtype=np.uint16, casting="unsafe")
        paired = np.take_along_axis(split, moved, 4).reshape(packed.shape)
        return paired, places.reshape(*shape, words + 1)

    def pairs_pay(self, packed: np.ndarray, vectors: int) -> bool:
        """Whether `enough_pairs` are found in a few tiles of packed weights that fit."""
        if not _FEWEST_WORDS <= self.packed_shape[3] <= _MOST_WORDS:
            return False
        panel = self.packed_shape[1:]
        tiles = packed.reshape(-1, vectors, *panel)
        some = tiles[:: -(-len(tiles) // _TILES_LOOKED_AT)]
        _, places = self.pair(some.reshape(-1, *panel), vectors)
        return enough_pairs(places)

    def pad_channels(self, values: np.ndarray) -> np.ndarray:
        """One value per output channel, laid out as the accumulators are (zero where there is no channel)."""
        lanes = self.layout.lanes
        per_group = self.panels // self.groups * lanes
        out = np.zeros((self.groups, per_group), values.dtype)
        out[:, : self.group_out] = values.reshape(self.groups, self.group_out)
        return out.reshape(-1)


# Of Winograd's F(m, 3), by m: G in integers. F(2, 3): 2 G. F(4, 3): 24 G, of whose last row a half, that 16 bits hold
# all transformed filters.
_WINOGRAD = {
    2: np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]),
    4: np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]]),
}


# With tiles of 4x4, 576 times an accumulator is known modulo 2^32, and so is the accumulator modulo 2^26.
WINOGRAD_LARGEST_SUM = 2**25 - 1


@dataclass(frozen=True)
class WinogradPacking(ConvPacking):
    """How 3x3 filters of one group are transformed and cut: as filters G w G^T of `size + 2` taps each way, for tiles
    of `size` (2 or 4) pixels of the output each way.

    They are stored like that, or `late`: as they are, for the kernel to transform, which takes an eighth of the bytes
    with tiles of 4x4.
    """

    late: bool = False

    @staticmethod
    def sizes(weight: np.ndarray) -> tuple[int, ...]:
        """The sizes that compute with `weight` `(out, in, ..)` and any codes: 4 up to `WINOGRAD_LARGEST_SUM`."""
        wide, filters = weight.astype(np.int64), tuple(range(1, weight.ndim))
        positive = np.maximum(wide, 0).sum(filters)
        negative = positive - wide.sum(filters)
        # Of codes as they are, 0 to 255 or -128 to 127: zero points are taken off later.
        sums = np.maximum(255 * np.maximum(positive, negative), 128 * (positive + negative))
        largest = sums.max(initial=0)
        return tuple(size for size in _WINOGRAD if size == 2 or largest <= WINOGRAD_LARGEST_SUM)

    @staticmethod
    def of(shape: ConvShape, layout: DotLayout, size: int, late: bool = False) -> "WinogradPacking":
        """The cut of `shape`'s filter for `layout`."""
        inputs, outputs = shape.in_channels, shape.out_channels
        return WinogradPacking(layout, 1, 1, inputs, outputs, size + 2, size + 2, inputs, late)

    @property
    def size(self) -> int:
        """Pixels of a tile each way."""
        return self.tap_rows - 2

    def tiles(self, shape: ConvShape) -> tuple[int, int]:
        """Rows and columns of tiles of an image of the output."""
        return -(-shape.out_height // self.size), -(-shape.out_width // self.size)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of int16 `packed_shape`; if filters are transformed late, of int8 `(panels, padded_run / depth, 3, 3, lanes,
        depth)`, which are read from the first to the last."""
        if not self.late:
            return self.packed_shape
        panels, _, _, *cut = self.packed_shape
        return (panels, cut[0], 3, 3, *cut[1:])

    def pack(self, weight: np.ndarray, zeros: np.ndarray | None = None) -> np.ndarray:
        """Cut int8 `weight` `(out, in, 3, 3)` into `stored_shape`; transformed ones are at most 144 * 128 each."""
        assert zeros is None
        if self.late:
            plain = replace(self, tap_rows=3, tap_cols=3)
            return np.ascontiguousarray(ConvPacking.pack(plain, weight).transpose(0, 3, 1, 2, 4, 5))
        rows = _WINOGRAD[self.size]
        wide = np.einsum("ra,oiab,cb->oirc", rows, weight.astype(np.int32), rows)
        return super().pack(wide.astype(np.int16))


# Where the interleaved rows of an output row come from: it has its "own"; or the image has some that begin at "each" of
# its rows; or groups of rows lie side by side, "aligned", and filters begin anywhere in one.
Interleaving = Literal["own", "each", "aligned"]


class ChannelBlocks(ABC):
    """Blocks of `channels`, of which the last one overlaps the one before rather than stick out, if there is one."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of a block."""

    def blocks(self, channels: int) -> int:
        """Blocks that hold `channels`."""
        return -(-channels // self.channels)

    def first(self, block, channels: int, least=min):
        """The first channel of a block."""
        start = block * self.channels
        return start if channels < self.channels else least(start, channels - self.channels)


@dataclass(frozen=True)
class DepthwisePacking(ChannelBlocks):
    """The order in which depthwise kernels hold channels and pixels.

    A block is what the bytes of one vector hold, in 16-byte chunks: consecutive channels, at one pixel of each of
    `segments` equal parts of a row (so that few channels fill a vector, too). Interleaving four rows of bytes (vpunpck)
    leaves in vector `j` the bytes `16 k + 4 j + q` at lane `4 k + q`, because it works within 16 bytes, and narrowing
    four vectors of results (vpack) puts them back in order. So everything that is held for each channel has the axes
    `[block][j][k][q]`, where the chunk `k` counts segments outside and chunks of channels inside.

    `phases` successive output rows share interleaved rows: the filter of the p-th begins `p` rows into a group.
    """

    layout: DotLayout
    segments: int = 1
    phases: int = 1

    @property
    def chunks(self) -> int:
        """16-byte chunks of a vector: the extent of `k`."""
        return self.layout.lanes // 4

    @property
    def channels(self) -> int:
        """Channels of a block."""
        return 4 * self.layout.lanes // self.segments

    def groups(self, kernel_h: int) -> int:
        """Row groups that hold a filter of so many rows, whatever its phase."""
        return -(-(kernel_h + self.phases - 1) // self.layout.depth)

    def rows(self, height: int) -> int:
        """Output rows that a kernel computes for `height`: whole tiles of all phases."""
        return -(-height // self.phases) * self.phases

    def stores_whole(self, shape: ConvShape, columns: int) -> bool:
        """Whether no tile of `columns` pixels and no block sticks out of the output."""
        tiles = (shape.out_height, self.phases), (shape.out_width, columns)
        whole = all(size % tile == 0 for size, tile in tiles)
        return self.segments == 1 and whole and shape.out_channels % self.channels == 0

    def pack_channels(self, values: np.ndarray) -> np.ndarray:
        """`values` `(..., channels)`, one for each channel, as `(..., blocks, 4, chunks, 4)`; zero beyond the last."""
        *outer, channels = values.shape
        blocks = self.blocks(channels)
        padded = np.zeros((*outer, max(channels, self.channels)), values.dtype)
        padded[..., :channels] = values
        starts = [self.first(block, channels) for block in range(blocks)]
        each = [padded[..., start : start + self.channels] for start in starts]
        split = np.stack(each, -2).reshape(*outer, blocks, self.chunks // self.segments, 4, 4)
        ordered = np.swapaxes(split, -3, -2)
        return np.concatenate([ordered] * self.segments, axis=-2)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Pack `(channels, 1, [kernel_d,] kernel_h, kernel_w)` into `(blocks, row groups, kernel_w, 4, chunks, 4, d)`.

        What a block is multiplied with lies together: a power of two apart, it would not stay in the first cache.
        `d` vertically adjacent taps form one dot-product group; rows beyond the filter are zero. The groups of all
        planes of all phases are counted together, phases outside, then planes.
        """
        *_, kernel_h, kernel_w = weight.shape
        channels, depth, groups = weight.shape[0], self.layout.depth, self.groups(kernel_h)
        planes = weight.reshape(channels, -1, kernel_h, kernel_w).transpose(1, 2, 3, 0)
        rows = np.zeros(
            (self.phases, len(planes), groups * depth, kernel_w, channels), weight.dtype
        )
        for phase in range(self.phases):
            rows[phase, :, phase : phase + kernel_h] = planes
        packed = self.pack_channels(rows)
        split = packed.reshape(-1, depth, *packed.shape[3:])
        return np.ascontiguousarray(np.moveaxis(split, (3, 1), (0, -1)))


@dataclass(frozen=True)
class TapWords:
    """Positions of a window, which a kernel interleaves to words, and what it multiplies them with.

    Positions are (row, column) of the window of a tile of pixels side by side, None for one that has the weight zero.
    `uses` are (pixel, number of the words of weights).
    """

    positions: tuple[tuple[int, int] | None, ...]
    uses: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class DirectDepthwisePacking:
    """Filters of depthwise kernels that interleave what they multiply in registers, where it lies in the image.

    A dot product takes a word of `layout.depth` taps: of as many rows, or, of the last ones, of fewer rows and as many
    columns as there is room for. The `pixels` of a tile, `stride` columns apart, share what is interleaved. Channels
    are in the order of `DepthwisePacking`.
    """

    layout: DotLayout
    kernel: tuple[int, int]
    stride: int
    pixels: int

    @property
    def order(self) -> DepthwisePacking:
        """The order of channels."""
        return DepthwisePacking(self.layout)

    @property
    def columns(self) -> int:
        """The width of a tile's window."""
        return (self.pixels - 1) * self.stride + self.kernel[1]

    def filter_bytes(self, channels: int) -> int:
        """How large the packed filters of one plane are."""
        return 4 * self.layout.lanes * 4 * len(self.taps) * self.order.blocks(channels)

    @cached_property
    def taps(self) -> list[tuple[tuple[int, int] | None, ...]]:
        """The words of taps that weights are packed in; None has the weight zero."""
        return self._words[0]

    @cached_property
    def steps(self) -> list[TapWords]:
        """What a tile interleaves, in order."""
        return self._words[1]

    @cached_property
    def _words(self):
        taps, steps = [], []
        (height, width), depth = self.kernel, self.layout.depth

        def tap(row: int, column: int, pixel: int):
            k = column - pixel * self.stride
            return (row, k) if row < height and 0 <= k < width and column < self.columns else None

        for row in range(0, height, depth):
            side = depth // min(depth, height - row)
            for x in range(0, self.columns, side):
                places = [(row + i // side, x + i % side) for i in range(depth)]
                uses = []
                for pixel in range(self.pixels):
                    word = tuple(tap(*place, pixel) for place in places)
                    if any(word):
                        if word not in taps:
                            taps.append(word)
                        uses.append((pixel, taps.index(word)))
                if uses:
                    inside = [r < height and c < self.columns for r, c in places]
                    kept = (at if here else None for at, here in zip(places, inside, strict=True))
                    steps.append(TapWords(tuple(kept), tuple(uses)))
        return taps, steps

    def pack_channels(self, values: np.ndarray) -> np.ndarray:
        """`DepthwisePacking.pack_channels`."""
        return self.order.pack_channels(values)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Pack integers `(channels, 1, [kernel_d,] kernel_h, kernel_w)` into `layout.rhs`
        `(blocks, kernel_d * words of taps, 4, chunks, 4, depth)`."""
        planes, depth = weight.reshape(len(weight), -1, *self.kernel), self.layout.depth
        shape = (planes.shape[1], len(self.taps), depth, len(weight))
        words = np.zeros(shape, self.layout.rhs)
        for number, word in enumerate(self.taps):
            for i, tap in enumerate(word):
                if tap:
                    words[:, number, i] = planes[:, :, *tap].T
        packed = self.pack_channels(words.reshape(-1, depth, len(weight)))
        return np.ascontiguousarray(np.moveaxis(packed, (2, 1), (0, -1)))


@dataclass(frozen=True)
class GroupedPacking(ChannelBlocks):
    """Filters of grouped convolutions whose groups are lanes: a vector of activations, as it lies in memory, is
    multiplied by that of each output.

    Lanes hold `4 * quads` channels in and as many out, of `merged` groups (zeros outside the diagonal): words of four
    channels are what an instruction multiplies. Two words of a lane are taken out of two vectors by vshufps, which
    works within 16 bytes, so lanes come in the order of `group`.
    """

    layout: DotLayout
    quads: int
    merged: int

    @staticmethod
    def of(shape: ConvShape, layout: DotLayout) -> "GroupedPacking | None":
        """The cut of `shape`'s filter for `layout`; None if groups do not make lanes, or are too few for a vector."""
        each = shape.in_channels // shape.groups
        channels = max(4, each)
        fitting = (
            channels in (4, 8) and channels % each == 0 and shape.groups % (channels // each) == 0
        )
        if not fitting or layout.depth != 4 or shape.in_channels != shape.out_channels:
            return None
        packing = GroupedPacking(layout, channels // 4, channels // each)
        return packing if shape.in_channels >= packing.channels else None

    @property
    def outputs(self) -> int:
        """Outputs of a lane."""
        return 4 * self.quads

    @property
    def channels(self) -> int:
        """Channels of a block: those of all lanes."""
        return self.outputs * self.layout.lanes

    @property
    def group(self) -> list[int]:
        """Which of a block's groups each lane holds."""
        lanes = range(self.layout.lanes)
        if self.quads == 1:
            return list(lanes)
        half = self.layout.lanes // 2
        return [lane % 4 // 2 * half + lane // 4 * 2 + lane % 2 for lane in lanes]

    def pack_channels(self, values: np.ndarray) -> np.ndarray:
        """`values` `(channels,)` as `(blocks, outputs, lanes)`."""
        starts = [self.first(b, len(values)) for b in range(self.blocks(len(values)))]
        each = [values[start : start + self.channels].reshape(-1, self.outputs) for start in starts]
        return np.ascontiguousarray(np.stack(each)[:, self.group].swapaxes(1, 2))

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Pack `(channels, in / groups, [kernel_d,] kernel_h, kernel_w)`, same dtype, into
        `(blocks, kernel_d * kernel_h, kernel_w, quads, outputs, lanes, 4)`."""
        channels, each, *_, kernel_w = weight.shape
        taps = weight.reshape(channels, each, -1, kernel_w)
        dense = np.zeros((channels, self.outputs, *taps.shape[2:]), weight.dtype)
        for m in range(self.merged):
            own = (np.arange(channels) // each) % self.merged == m
            dense[own, m * each : (m + 1) * each] = taps[own]
        starts = [self.first(b, channels) for b in range(self.blocks(channels))]
        split = np.stack([dense[start : start + self.channels] for start in starts])
        lanes = (len(starts), self.layout.lanes, self.outputs, self.quads, 4, *taps.shape[2:])
        # (block, lane, output, quad, 4, row, column)
        ordered = split.reshape(lanes)[:, self.group].transpose(0, 5, 6, 3, 2, 1, 4)
        return np.ascontiguousarray(ordered)

    def sums_fit(self, packed: np.ndarray) -> bool:
        """Whether sums of 16 bits hold all products of `packed` weights (see `quant.sums_fit`)."""
        return sums_fit(packed.reshape(1, -1, 4), 1)


def word_type(depth: int) -> str:
    """The dtype of a word of `depth` unsigned bytes."""
    return {2: "uint16", 4: "int32"}[depth]


def word_element(word, index):
    """Byte `index` of an int32 word, the first one lowest."""
    return (word >> (8 * index)) & 255
