"""Packed weights hold every weight once, where the kernel's index finds it, and zeros elsewhere."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lowgemm.packing import (
    Axis,
    ConvPacking,
    ConvShape,
    DepthwisePacking,
    DotLayout,
    word_element,
    word_type,
)

VNNI16, VNNI8 = DotLayout(16, 4, "uint8", "int8"), DotLayout(8, 4, "uint8", "int8")
WIDE16, WIDE8 = DotLayout(16, 2, "int16", "int16"), DotLayout(8, 2, "int16", "int16")
LAYOUTS = {"16x4": VNNI16, "8x4": VNNI8, "16x2": WIDE16, "8x2": WIDE8}

SHAPES = {
    "1x1": ConvShape(1, 5, 5, 8, 32, (1, 1)),
    "3x3": ConvShape(1, 5, 5, 8, 32, (3, 3)),
    "depth-of-9": ConvShape(1, 5, 5, 3, 16, (3, 3)),
    "13-outputs": ConvShape(1, 5, 5, 5, 13, (3, 2)),
    "dilated-columns": ConvShape(1, 9, 9, 6, 16, (3, 3), dilations=(1, 2)),
    "dilated-rows": ConvShape(1, 9, 9, 6, 16, (3, 3), dilations=(2, 1)),
    "groups": ConvShape(1, 5, 5, 32, 64, (3, 3), groups=2),
    "groups-merged": ConvShape(1, 5, 5, 32, 32, (3, 3), groups=8),
    "groups-all-merged": ConvShape(1, 5, 5, 9, 15, (3, 3), groups=3),
}


def numbered(shape: ConvShape) -> np.ndarray:
    """Weights that are all different, from 1 on."""
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    return np.arange(1, np.prod(size) + 1, dtype=np.int32).reshape(size)


def test_planes_of_a_window_follow_one_another() -> None:
    """A window of three dimensions is held as one of as many rows as all its planes have."""
    solid = ConvShape(1, 5, 5, 8, 32, (3, 3), planes=Axis(4, kernel=2))
    tall = ConvShape(1, 9, 5, 8, 32, (6, 3))
    weight = numbered(tall)
    packings = [ConvPacking.of(shape, VNNI16) for shape in (solid, tall)]
    packed = [
        packings[0].pack(weight.reshape(32, 8, 2, 3, 3)),
        packings[1].pack(weight),
    ]
    assert packed[0].shape == packings[0].packed_shape
    assert np.array_equal(packed[0], packed[1])


def find(
    packing: ConvPacking, shape: ConvShape, packed: np.ndarray, o: int, i: int, r: int, c: int
):
    """The weight of output `o`, input channel `i` (of all), row `r` and column `c`, by the layout's definition."""
    lanes, depth = packing.layout.lanes, packing.layout.depth
    group, inside = divmod(o, packing.group_out)
    lane = group * (packing.panels // packing.groups) * lanes + inside
    channel = i - group * packing.group_in
    if not 0 <= channel < packing.group_in:
        return 0
    tap, j = (c, channel) if packing.tap_cols > 1 else (0, c * packing.group_in + channel)
    return packed[lane // lanes, r, tap, j // depth, lane % lanes, j % depth]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", SHAPES)
def test_every_weight_is_where_the_kernel_looks(case: str, layout: str) -> None:
    shape = SHAPES[case]
    packing = ConvPacking.of(shape, LAYOUTS[layout])
    weight = numbered(shape)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.dtype == weight.dtype
    assert np.array_equal(np.sort(packed[packed != 0]), weight.reshape(-1))
    each_out, each_in = shape.out_channels // shape.groups, shape.in_channels // shape.groups
    for o, i in itertools.product(range(shape.out_channels), range(shape.in_channels)):
        own = i // each_in == o // each_out
        for r, c in itertools.product(*map(range, shape.kernel)):
            want = weight[o, i % each_in, r, c] if own else 0
            assert find(packing, shape, packed, o, i, r, c) == want


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", SHAPES)
def test_groups_fill_whole_vectors_or_are_one(case: str, layout: str) -> None:
    """Accumulator o is output channel o: no padding may lie between groups."""
    packing = ConvPacking.of(SHAPES[case], LAYOUTS[layout])
    assert packing.groups == 1 or packing.group_out % packing.layout.lanes == 0
    assert packing.groups * packing.merged == SHAPES[case].groups
    assert packing.padded_run % packing.layout.depth == 0
    assert 0 <= packing.padded_run - packing.run < packing.layout.depth


@pytest.mark.parametrize("case", SHAPES)
def test_values_of_channels_lie_as_accumulators_do(case: str) -> None:
    shape = SHAPES[case]
    packing = ConvPacking.of(shape, VNNI16)
    values = np.arange(1, shape.out_channels + 1, dtype=np.float32)
    padded = packing.pad_channels(values)
    assert padded.shape == (packing.panels * 16,)
    assert padded.dtype == np.float32
    assert np.array_equal(padded[: shape.out_channels], values)
    assert not padded[shape.out_channels :].any()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    groups=st.integers(1, 12),
    each_in=st.integers(1, 9),
    each_out=st.integers(1, 20),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_no_weight_is_lost_or_doubled(groups, each_in, each_out, kernel, dilation, layout) -> None:
    shape = ConvShape(
        1, 9, 9, groups * each_in, groups * each_out, kernel, dilations=(1, dilation), groups=groups
    )
    packing = ConvPacking.of(shape, LAYOUTS[layout])
    packed = packing.pack(numbered(shape))
    assert np.array_equal(np.sort(packed[packed != 0]), numbered(shape).reshape(-1))
    assert packing.groups == 1 or packing.group_out % packing.layout.lanes == 0


@pytest.mark.parametrize(
    "codes", [(255, 0, 1, 254), (0, 255, 128, 127), (1, 2, 3, 4), (255, 0), (127, 254)]
)
def test_a_word_of_unsigned_bytes(codes: tuple[int, ...]) -> None:
    word = np.array(codes, np.uint8).view(word_type(len(codes)))[0].astype(np.int32)
    assert tuple(int(word_element(word, i)) for i in range(len(codes))) == codes


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (ConvShape(1, 5, 5, 8, 8, (3, 3)), (3, 3)),
        (ConvShape(1, 5, 6, 8, 8, (3, 3), padding=(1, 1, 1, 1)), (5, 6)),
        (ConvShape(1, 224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3)), (112, 112)),
        (ConvShape(1, 9, 9, 8, 8, (3, 3), dilations=(2, 3)), (5, 3)),
        (ConvShape(1, 8, 9, 8, 8, (2, 3), (2, 1), (0, 1, 1, 0)), (4, 8)),
    ],
    ids=["plain", "padded", "strided", "dilated", "uneven"],
)
def test_output_sizes(shape: ConvShape, size: tuple[int, int]) -> None:
    assert (shape.out_height, shape.out_width) == size


@pytest.mark.parametrize(
    ("axis", "span", "out"),
    [
        (Axis(7), 1, 7),
        (Axis(7, kernel=3, stride=2, before=1, after=1), 3, 4),
        (Axis(7, kernel=3, dilation=3), 7, 1),
        (Axis(7, kernel=2, before=-2, after=-1), 2, 3),
    ],
)
def test_extent_of_an_output_axis(axis: Axis, span: int, out: int) -> None:
    assert (axis.span, axis.out) == (span, out)


@given(
    axis=st.builds(
        Axis,
        size=st.integers(1, 6),
        kernel=st.integers(1, 5),
        stride=st.integers(1, 4),
        before=st.integers(-2, 8),
        after=st.integers(-2, 8),
        dilation=st.integers(1, 4),
    ),
)
def test_useful_taps_are_those_that_meet_the_input(axis: Axis) -> None:
    """They keep every product with an input, and neither of the taps at their ends is one that has none."""
    assume(axis.size + axis.before + axis.after >= axis.span)
    taps = axis.useful_taps
    cut = axis.cut(taps)

    def products(axis: Axis, first: int) -> set[tuple[int, int, int]]:
        """(output, tap, input)"""
        at = itertools.product(range(axis.out), range(axis.kernel))
        each = ((o, k, o * axis.stride + k * axis.dilation - axis.before) for o, k in at)
        return {(o, k + first, q) for o, k, q in each if 0 <= q < axis.size}

    wanted = products(axis, 0)
    met = {k for _, k, _ in wanted} or {0}
    assert (taps.start, taps.stop) == (min(met), max(met) + 1)
    assert (cut.out, products(cut, taps.start)) == (axis.out, wanted)


def test_planes_multiply_images_and_products() -> None:
    shape = ConvShape(2, 7, 7, 32, 64, (3, 3), planes=Axis(5, kernel=3, before=1))
    assert (shape.out_images, shape.taps) == (8, 27)
    assert shape.macs == 8 * 25 * 64 * 32 * 27


def test_multiply_accumulates_are_counted_per_group() -> None:
    assert (
        ConvShape(2, 7, 7, 32, 64, (3, 3), groups=4, padding=(1, 1, 1, 1)).macs == 2 * 49 * 64 * 72
    )


@pytest.mark.parametrize(("lanes", "segments"), [(8, 1), (8, 2), (16, 1), (16, 2), (16, 4)])
def test_depthwise_channels_lie_where_shuffles_leave_them(lanes: int, segments: int) -> None:
    """[block][j][k][q] is channel 16 k + 4 j + q of a block, once for every segment; the last block ends with them."""
    packing = DepthwisePacking(DotLayout(lanes, 4, "uint8", "int8"), segments)
    channels = packing.channels + 5
    packed = packing.pack_channels(np.arange(1, channels + 1))
    chunks = packing.chunks // segments
    assert packed.shape == (2, 4, packing.chunks, 4)
    for block, j, k, q in np.ndindex(packed.shape):
        channel = (0, 5)[block] + 16 * (k % chunks) + 4 * j + q
        assert packed[block, j, k, q] == channel + 1


def test_channels_that_fill_no_depthwise_block_are_followed_by_zeros() -> None:
    packing = DepthwisePacking(DotLayout(8, 4, "uint8", "int8"))
    packed = packing.pack_channels(np.arange(1, 6))
    assert packed.shape == (1, 4, 2, 4)
    assert packed[0, :2, 0].tolist() == [[1, 2, 3, 4], [5, 0, 0, 0]]
    assert packed.sum() == 15


def test_depthwise_rows_form_groups_that_end_in_zeros() -> None:
    weight = np.arange(1, 76, dtype=np.int8).reshape(3, 1, 5, 5)
    packed = DepthwisePacking(DotLayout(8, 4, "uint8", "int8")).pack(weight)
    assert packed.shape == (1, 2, 5, 4, 2, 4, 4)
    taps = packed[0, :, :, 0, 0, :3]  # channels 0..2, as (row group, column, channel, row)
    rows = taps.transpose(2, 0, 3, 1).reshape(3, 8, 5)
    assert np.array_equal(rows[:, :5], weight[:, 0])
    assert not rows[:, 5:].any()


def test_depthwise_filters_of_successive_rows_begin_at_successive_rows_of_a_group() -> None:
    weight = np.arange(1, 19, dtype=np.int8).reshape(2, 1, 3, 3)
    packed = DepthwisePacking(DotLayout(8, 2, "int16", "int16"), phases=2).pack(weight)
    # (block, two phases of two groups, column, channels, row)
    assert packed.shape == (1, 4, 3, 4, 2, 4, 2)
    first, second = (
        packed[0, :, :, 0, 0, :2].transpose(2, 0, 3, 1).reshape(2, 2, 4, 3).swapaxes(0, 1)
    )
    assert np.array_equal(first[:, :3], weight[:, 0])
    assert np.array_equal(second[:, 1:], weight[:, 0])
    assert not first[:, 3].any() and not second[:, 0].any()


def test_depthwise_row_groups_of_planes_follow_one_another() -> None:
    packing = DepthwisePacking(DotLayout(8, 4, "uint8", "int8"))
    weight = np.arange(1, 121, dtype=np.int8).reshape(4, 1, 2, 5, 3)
    packed = packing.pack(weight)
    assert packed.shape[1:3] == (4, 3)
    assert np.array_equal(packed[:, :2], packing.pack(weight[:, :, 0]))
    assert np.array_equal(packed[:, 2:], packing.pack(weight[:, :, 1]))
