"""Every configuration gives the same integers, defaults fit their target, and bad ones are refused."""

import itertools
from dataclasses import fields, replace

import pytest

from lowgemm import schedules
from lowgemm.lower import _convolutions
from lowgemm.packing import ConvPacking, ConvShape, dot_layout
from lowgemm.schedules import ConvConfig, DepthwiseConfig
from lowgemm.targets import LEVELS
from lowgemm.tiling import _depthwise, needs_stage, row_image

from conv_check import Conv, check
from isa import isas, mark

# 3 panels of 16 lanes or 5 to 6 of 8, rows and columns that no tile divides, and a padded edge.
PADDED = Conv((1, 12, 7, 11), 48, (3, 3), pads=(1, 1, 1, 1))
# No padding, and tiles that divide: the kernel reads its input itself.
DIRECT = Conv((1, 16, 8, 12), 48, (3, 3))
ROW = Conv((1, 64), 48)


def tiles(level: str) -> dict[str, ConvConfig]:
    """Register tiles of all kinds: tall, wide, one pixel, several vectors, unrolled, 8 lanes on a wide target."""
    target = LEVELS[level]
    base = ConvConfig(1, 4, 1, target.lanes, 1, "rows", 1, target.dot_depth == 2)
    found = {
        "one-pixel": replace(base, columns=1),
        "tall": replace(base, rows=2, columns=3),
        "three-vectors": replace(base, columns=3, vectors=3),
        "unrolled": replace(base, unroll=4),
        "wide": replace(base, columns=12),
        "8-lanes": replace(base, lanes=8),
        "several-rows-a-block": replace(base, block=7),
        "panels": replace(base, order="panels"),
        "panels-tall": replace(base, order="panels", rows=2, columns=1, vectors=3),
    }
    if target.dot_depth == 2:
        found["widened-in-registers"] = replace(base, widen=False)
        found["panels-widened-in-registers"] = replace(base, order="panels", widen=False)
    return found


def fixed(monkeypatch: pytest.MonkeyPatch, config: ConvConfig | DepthwiseConfig) -> None:
    """Let lowering use `config`."""
    monkeypatch.setattr(schedules, "default_config", lambda task: config)
    monkeypatch.setattr(_convolutions, "winograd_size", lambda *_: None)
    monkeypatch.setattr(_convolutions, "direct_depthwise_pays", lambda *_: False)


CASES = [
    pytest.param(level, tile, marks=mark(level), id=f"{level}-{tile}")
    for level in LEVELS
    for tile in tiles(level)
]
KINDS = ("random", "alternating")


@pytest.mark.parametrize(("level", "tile"), CASES)
def test_convolution_is_exact_with_any_tile(level: str, tile: str, monkeypatch) -> None:
    config = tiles(level)[tile]
    config.check(LEVELS[level])
    fixed(monkeypatch, config)
    check(PADDED, level, kinds=KINDS)


@pytest.mark.parametrize("order", ["rows", "panels"])
@pytest.mark.parametrize("level", isas())
def test_convolution_is_exact_without_a_stage(level: str, order: str, monkeypatch) -> None:
    target = LEVELS[level]
    tile = ConvConfig(2, 5, 1, target.lanes, 1, order, 3, target.dot_depth == 2)
    fixed(monkeypatch, tile)
    check(DIRECT, level, kinds=KINDS)


@pytest.mark.parametrize("order", ["rows", "panels"])
@pytest.mark.parametrize("level", isas())
def test_one_row_is_exact_in_either_order(level: str, order: str, monkeypatch) -> None:
    target = LEVELS[level]
    config = ConvConfig(1, 1, 3, target.lanes, 2, order, 1, target.dot_depth == 2)
    fixed(monkeypatch, config)
    check(ROW, level, kinds=KINDS)


@pytest.mark.parametrize(
    ("columns", "whole"),
    [(1, False), (3, True), (2, True)],
    ids=["one-pixel", "tile-that-does-not-divide", "whole-image"],
)
@pytest.mark.parametrize("level", isas())
def test_depthwise_is_exact_with_any_tile(level, columns, whole, monkeypatch) -> None:
    conv = Conv((1, 19, 7, 11), 19, (3, 3), pads=(1, 1, 1, 1), group=19)
    shape = ConvShape(1, 7, 11, 19, 19, (3, 3), padding=conv.pads, groups=19)
    default = schedules.default_depthwise_config(shape, LEVELS[level])
    packing = schedules.depthwise_packing(shape, LEVELS[level], default.segments)
    block_rows = packing.rows(7) if whole else packing.phases
    fixed(monkeypatch, replace(default, columns=columns, block_rows=block_rows))
    check(conv, level, kinds=KINDS)


@pytest.mark.parametrize("segments", [1, 2, 4])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (1, 5), (2, 5)])
@pytest.mark.parametrize("level", isas())
def test_depthwise_is_exact_with_any_segments(level, stride, kernel, segments, monkeypatch) -> None:
    """Parts of a row that share vectors, at both ends of a row and with channels that do not fill a block."""
    if 4 * segments > LEVELS[level].lanes:
        pytest.skip(f"{segments} segments need vectors of {segments} chunks")
    e, size = kernel // 2, 12 * stride
    conv = Conv(
        (1, 24, size, size), 24, (kernel, kernel), (stride, stride), pads=(e,) * 4, group=24
    )
    fixed(monkeypatch, DepthwiseConfig(2, 4, segments))
    check(conv, level, kinds=KINDS)


@pytest.mark.parametrize("channels", [64, 80])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("level", isas())
def test_depthwise_is_exact_with_blocks_copied_together(
    level: str, kernel: int, stride: int, dilation: int, channels: int, monkeypatch
) -> None:
    """As of a large image, each of several blocks of rows, and the last block of channels over the one before."""
    monkeypatch.setattr(_depthwise, "_FAR", 1)
    e, strides, dilations = kernel // 2 * dilation, (stride, stride), (dilation, dilation)
    conv = Conv(
        (1, channels, 12, 12),
        channels,
        (kernel, kernel),
        strides,
        (e, e, e, e),
        dilations,
        channels,
    )
    fixed(monkeypatch, DepthwiseConfig(2, 2))
    check(conv, level, kinds=KINDS)


@pytest.mark.parametrize("order", ["rows", "panels"])
@pytest.mark.parametrize("level", isas())
def test_parts_of_a_padded_row_end_where_they_do(level: str, order: str, monkeypatch) -> None:
    """Of few channels, whose vectors run across pixels: none may write behind a part, which lies on the stack."""
    config = ConvConfig(1, 5, 1, LEVELS[level].lanes, 1, order, 1, False)
    fixed(monkeypatch, config)
    for after in range(5):
        check(Conv((1, 12, 1, 6 + 4 - after), 3, (1, 5), pads=(0, 4, 0, after)), level, kinds=KINDS)


SHAPES = [
    ConvShape(
        1, size, size, channels, out, (2 * e + 1, 2 * e + 1), (1, 1), (e, e, e, e), groups=groups
    )
    for size, (channels, out, groups), e in itertools.product(
        (1, 7, 13, 56, 112), ((3, 16, 1), (64, 10, 1), (512, 512, 1), (32, 64, 4)), (0, 1)
    )
]
LEVEL_NAMES = tuple(LEVELS)


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_default_configurations_fit_the_registers(level: str, threads: int) -> None:
    target = LEVELS[level]
    for shape in SHAPES:
        config = schedules.default_conv_config(shape, target, threads)
        config.check(target)
        assert config.lanes in (8, target.lanes)
        depthwise = replace(shape, out_channels=shape.in_channels, groups=shape.in_channels)
        tile = schedules.default_depthwise_config(depthwise, target)
        assert tile.columns < target.registers


def test_threads_share_pixels_where_weights_are_near() -> None:
    """Panels would be neighbours in a cache line of the output. One thread keeps them, and so do larger weights."""
    target = LEVELS["avx2"].summing(1)
    small, large = (ConvShape(1, 1, 288, depth, 88, (1, 1)) for depth in (16, 2048))
    orders = {
        (shape.in_channels, threads): schedules.default_conv_config(shape, target, threads).order
        for shape in (small, large)
        for threads in (1, 2)
    }
    assert orders == {(16, 1): "panels", (16, 2): "rows", (2048, 1): "panels", (2048, 2): "panels"}


def test_rows_of_a_matrix_are_images_whose_rows_find_room_in_the_second_cache() -> None:
    found = {depth: row_image(1568, depth, 1) for depth in (256, 1024, 2304, 1 << 20)}
    assert found == {256: (7, 224), 1024: (14, 112), 2304: (28, 56), 1 << 20: (56, 28)}
    assert row_image(392, 256, 1) == (1, 392)


def test_rows_of_a_matrix_are_images_whose_rows_threads_share_evenly() -> None:
    found = {threads: row_image(1568, 256, threads) for threads in (1, 2, 4, 8)}
    assert found == {1: (7, 224), 2: (8, 196), 4: (8, 196), 8: (8, 196)}


def test_tiles_of_vnni_waste_no_products() -> None:
    target = LEVELS["avx512_vnni"]
    tiles = {}
    for pixels in (49, 196, 256):
        config = schedules.default_conv_config(ConvShape(1, 1, pixels, 512, 512, (1, 1)), target)
        tiles[pixels] = (config.columns, config.vectors)
    assert tiles == {49: (7, 2), 196: (14, 2), 256: (4, 4)}


def test_tiles_do_not_write_whole_lines_of_far_outputs() -> None:
    target = LEVELS["avx512_vnni"]
    near, far = (ConvShape(1, rows, 192, 256, 1024, (1, 1)) for rows in (4, 28))
    vectors = [schedules.default_conv_config(shape, target).vectors for shape in (near, far)]
    assert vectors == [4, 2]


@pytest.mark.parametrize("summed", [0, 1, 2])
def test_no_tile_on_avx2_has_three_vectors_of_a_pixel(summed: int) -> None:
    shape = ConvShape(1, 56, 56, 144, 24, (1, 1))
    assert schedules.default_conv_config(shape, LEVELS["avx2"].summing(summed)).vectors == 1


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        (ConvShape(1, 28, 28, 512, 128, (1, 1)), (4, 2)),
        (ConvShape(1, 1, 49, 512, 2048, (1, 1)), (5, 2)),
        (ConvShape(1, 1, 102, 256, 2323, (1, 1)), (3, 3)),
        (ConvShape(1, 13, 13, 384, 384, (3, 3), padding=(1, 1, 1, 1)), (2, 4)),
        (ConvShape(1, 14, 224, 144, 24, (1, 1)), (8, 1)),
    ],
)
def test_tiles_of_words_in_pairs_are_those_that_were_fastest(shape: ConvShape, tile: tuple) -> None:
    """Of all that were measured on a Zen 3, or within 3% of it: among them none with many pixels of one vector."""
    config = schedules.default_conv_config(shape, LEVELS["avx2"].summing(1, paired=True))
    assert (config.rows, config.columns, config.vectors) == (1, *tile)


@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_an_image_is_not_copied_for_the_sake_of_a_tile_that_wastes_less(level: str) -> None:
    shape = ConvShape(1, 14, 224, 144, 24, (1, 1))
    target = LEVELS[level]
    for view in (target, target.summing(1), target.summing(1, paired=True)):
        config = schedules.default_conv_config(shape, view)
        packing = ConvPacking.of(shape, dot_layout(view, config.lanes))
        assert not needs_stage(shape, packing, packing.layout.lhs, config), (view, config)


def test_tiles_of_strided_pixels_go_beyond_a_row() -> None:
    """Rows of 14 pixels would leave half of each fourth tile, and rows of 7 an eighth: they are copied to one row."""
    target = LEVELS["avx2"].summing(1, paired=True)
    for size, depth in ((28, 512), (14, 1024)):
        shape = ConvShape(1, size, size, depth, 2 * depth, (1, 1), (2, 2))
        columns = schedules.default_conv_config(shape, target).columns
        pixels = (size // 2) ** 2
        assert shape.grid == (1, pixels)
        assert -(-pixels // columns) * columns < 1.03 * pixels


@pytest.mark.parametrize("knob", ["rows", "columns", "vectors", "unroll", "block"])
def test_a_knob_below_one_is_refused(knob: str) -> None:
    config = ConvConfig(1, 4, 1, 16, 1, "rows", 1)
    with pytest.raises(ValueError, match="at least 1"):
        replace(config, **{knob: 0})


@pytest.mark.parametrize("knob", [knob.name for knob in fields(DepthwiseConfig)])
def test_a_depthwise_knob_below_one_is_refused(knob: str) -> None:
    shape = ConvShape(1, 7, 7, 16, 16, (3, 3), groups=16)
    config = schedules.default_depthwise_config(shape, LEVELS["avx2"])
    with pytest.raises(ValueError, match="at least 1"):
        replace(config, **{knob: 0})


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match='"rows" or "panels", not "columns"'):
        ConvConfig(1, 4, 1, 16, 1, "columns", 1)


@pytest.mark.parametrize(
    ("level", "rows", "columns", "vectors"),
    [("avx512_vnni", 2, 15, 1), ("avx512", 1, 15, 2), ("avx_vnni", 2, 7, 1), ("avx2", 1, 4, 3)],
)
def test_a_tile_that_spills_is_refused(level: str, rows: int, columns: int, vectors: int) -> None:
    target = LEVELS[level]
    accumulators = rows * columns * vectors
    with pytest.raises(ValueError, match=rf"registers of {target.registers}"):
        # With the vector of weights and the broadcast, two registers more than there are at least.
        ConvConfig(rows, columns + 2, vectors, target.lanes, 1, "rows", 1).check(target)
    assert accumulators < target.registers
