"""The Winograd convolution gives the exact integers in every configuration, and refuses what it does not compute."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from lowgemm import lower, ops, reference, schedules
from lowgemm.lower import _convolutions
from lowgemm.ops import _conv_kernels
from lowgemm.packing import WINOGRAD_LARGEST_SUM, Axis, ConvShape, WinogradPacking
from lowgemm.passes import Quantization
from lowgemm.schedules import KernelTask
from lowgemm.targets import LEVELS
from lowgemm.tiling import (
    WINOGRAD_CHANNELS,
    WinogradConfig,
    check_winograd_config,
    default_winograd_config,
    winograd_packing,
    winograd_size,
    winograd_takes,
)

import kernels
from conv_check import Conv, check
from isa import isas

# Odd sizes, so that tiles stick out on two sides; pairs of channels and vectors of outputs that do, too.
ODD = Conv((2, 13, 7, 11), 27, (3, 3), pads=(1, 1, 1, 1))
# Pads that differ, and whole vectors.
EVEN = Conv((1, 16, 10, 13), 64, (3, 3), pads=(0, 2, 1, 0))
SQUARE = ConvShape(1, 56, 56, 64, 64, (3, 3), padding=(1, 1, 1, 1))
# Each knob by itself, on 4 vectors of 16 outputs or 8 of 8.
CONFIGS = {
    "plain": WinogradConfig(4, 2, 1, "rows", 1, 2, False),
    "one-vector": WinogradConfig(7, 1, 1, "rows", 1, 1, False),
    "unrolled": WinogradConfig(4, 2, 2, "rows", 1, 4, False),
    "uneven-blocks": WinogradConfig(4, 2, 1, "rows", 2, 4, False),
    "one-block": WinogradConfig(3, 2, 1, "rows", 3, 2, True),
    "panels": WinogradConfig(4, 2, 1, "panels", 3, 2, True),
    "blocks-inside-panels": WinogradConfig(4, 2, 1, "panels", 1, 4, False),
    "late": WinogradConfig(4, 2, 1, "panels", 3, 2, False, 4),
    "late-fetched": WinogradConfig(8, 1, 2, "panels", 3, 1, True, 8),
    "late-in-rows": WinogradConfig(4, 2, 2, "rows", 1, 4, False, 16),
}


@pytest.fixture(params=[2, 4])
def size(request: pytest.FixtureRequest) -> int:
    """Pixels of a tile each way."""
    return request.param


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch, size: int) -> pytest.MonkeyPatch:
    """Models and operators take the kernel wherever it computes the shape."""
    for module in (_convolutions, _conv_kernels):
        monkeypatch.setattr(module, "winograd_size", lambda *_: size)
    return monkeypatch


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("level", isas())
def test_every_configuration_is_exact(level: str, config: str, fewer) -> None:
    fewer.setattr(schedules, "default_config", lambda task: CONFIGS[config])
    check(EVEN, level, kinds=("random", "alternating"))


@pytest.mark.parametrize(
    ("in_dtype", "out_dtype", "residual"),
    [
        ("uint8", "uint8", None),
        ("int8", "int8", None),
        ("uint8", "int8", "uint8"),
        ("int8", "float32", None),
    ],
)
@pytest.mark.parametrize("level", isas())
def test_tails_are_exact_with_every_output(
    level: str, in_dtype: str, out_dtype: str, residual: str | None, fewer
) -> None:
    check(ODD, level, in_dtype, out_dtype, residual=residual)


@pytest.mark.parametrize("level", isas())
def test_filters_are_transformed_late_with_tails_and_batches(level: str, fewer) -> None:
    """The last part of the run is half a pair of channels, and vectors of outputs stick out."""
    config = WinogradConfig(4, 1, 1, "panels", 1, 1, True, 2)
    fewer.setattr(schedules, "default_config", lambda task: config)
    check(ODD, level, "int8", "uint8", residual="int8", kinds=("random", "extreme"))


@pytest.mark.parametrize("level", isas())
def test_largest_sums_are_exact(level: str, size: int, fewer) -> None:
    """Of 114 channels any weight has sums that tiles of 4x4 compute."""
    channels = WINOGRAD_CHANNELS if size == 2 else 114
    conv = Conv((1, channels, 3, 5), 8, (3, 3), pads=(1, 1, 1, 1))
    for dtype in ("uint8", "int8"):
        check(conv, level, dtype, "float32", kinds=("extreme", "saturating", "alternating"))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", isas())
def test_what_fits_tiles_of_4x4_is_exact_to_the_last_unit(
    level: str, sign: int, monkeypatch
) -> None:
    """One more is not computed by them, whatever the number of channels."""
    monkeypatch.setattr(_conv_kernels, "winograd_size", lambda *given: max(given[-1]))
    most = WINOGRAD_LARGEST_SUM // 255
    flat = np.full(512 * 9, most // (512 * 9))
    flat[: most % flat.size] += 1
    w = sign * np.stack([flat, flat[::-1]]).astype(np.int8).reshape(2, 512, 3, 3)
    assert WinogradPacking.sizes(w) == (2, 4)
    packed = ops.pack_conv(w, padding=1, target=level)
    x = np.full((1, 6, 6, 512), 255, np.uint8)
    got = packed(x)
    assert abs(got[0, 2, 2]).tolist() == [255 * most] * 2
    assert (
        got == reference.conv_i32(x, w, 0, np.zeros(2, np.int64), (1, 1), (1,) * 4, (1, 1), 1)
    ).all()
    w[1, -1, -1, -1] += sign
    assert WinogradPacking.sizes(w) == (2,)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("order", "part"), [("rows", 0), ("panels", 0), ("panels", 8)])
def test_threads_do_not_meet(order: str, part: int, threads: int, tmp_path, fewer) -> None:
    """Two threads, with more blocks than either claims at once."""
    import lowgemm
    from lowgemm.tune._build import build
    from lowgemm.tune._problem import problem

    shape = ConvShape(1, 24, 24, 32, 64, (3, 3), padding=(1, 1, 1, 1))
    assert shape.macs >= 1_000_000
    task = KernelTask("qwinograd2d", shape, "uint8", "uint8", "int8", LEVELS["avx2"], threads)
    config = WinogradConfig(4, 2, 2, order, 1 if order == "rows" else 12, 2, False, part)
    build(task, config, tmp_path / "task.so")
    made = problem(task)
    net = lowgemm.load(tmp_path / "task.so", threads=threads)
    for _ in range(20):
        assert (net(made.inputs)["y"] == made.expected).all()


@pytest.mark.parametrize("level", isas())
def test_operators_transform_filters_late(level: str, fewer) -> None:
    config = WinogradConfig(4, 1, 2, "panels", 1, 1, True, 8)
    fewer.setattr(_conv_kernels, "default_winograd_config", lambda *_: config)
    rng = np.random.default_rng(1)
    w = rng.integers(-128, 128, (24, 40, 3, 3), np.int8)
    packed = ops.pack_conv(w, x_zero_point=3, padding=1, target=level)
    for batch in (1, 2):
        x = rng.integers(0, 256, (batch, 9, 10, 40), np.uint8)
        acc = reference.conv_i32(x, w, 3, np.zeros(24, np.int64), (1, 1), (1,) * 4, (1, 1), 1)
        assert (packed(x) == acc).all()


@pytest.mark.emulated
@pytest.mark.parametrize("level", isas())
def test_operators_take_it_with_a_table_and_batches(level: str, fewer) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3, 5, 8, 9), np.uint8)
    w = rng.integers(-128, 128, (20, 9, 3, 3), np.int8)
    table = rng.permutation(256).astype(np.uint8)
    output = ops.Output("uint8", multiplier=1e-4, zero_point=100, table=table)
    packed = ops.pack_conv(w, x_zero_point=255, padding=(2, 0, 1, 1), output=output, target=level)
    acc = reference.conv_i32(x, w, 255, np.zeros(20, np.int64), (1, 1), (2, 0, 1, 1), (1, 1), 1)
    codes = reference.output_stage(acc, dtype="uint8", multiplier=1e-4, zero_point=100)
    assert (packed(x) == table[codes]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": (3, 2)},
        {"strides": (1, 2)},
        {"dilations": (2, 1)},
        {"groups": 2},
        {"in_channels": WINOGRAD_CHANNELS + 1},
        {"planes": Axis(4, 3)},
    ],
    ids=str,
)
def test_other_convolutions_are_refused(change: dict) -> None:
    shape, target = replace(SQUARE, **change), LEVELS["avx2"]
    assert winograd_takes(SQUARE) and winograd_size(SQUARE, target, 1, (2,)) == 2
    assert not winograd_takes(shape) and winograd_size(shape, target, 1, (2, 4)) is None
    with pytest.raises(ValueError, match="this kernel is for 3x3 filters of up to 913 channels"):
        check_winograd_config(shape, target, CONFIGS["plain"], 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"columns": 7}, "needs 18 registers of 16"),
        ({"panels": 3}, "2 vectors do not divide 3"),
        ({"panels": 6}, "6 panels do not divide 8"),
        ({"block": 29}, "there are fewer rows of tiles"),
        ({"order": "tiles"}, 'order is "rows" or "panels", not "tiles"'),
        ({"unroll": 0}, "every knob is at least 1"),
        ({"part": -2}, "a part is some channels, or 0"),
        ({"part": 24}, "24 channels do not divide 64"),
        ({"part": 1}, "an instruction takes 2 channels"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_winograd_config(SQUARE, LEVELS["avx2"], replace(CONFIGS["plain"], **change), 2)


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("level", LEVELS)
def test_defaults_fit(level: str, threads: int, size: int) -> None:
    for side, inputs, outputs in itertools.product((1, 3, 7, 56), (1, 5, 64, 512), (1, 8, 24, 80)):
        shape = replace(SQUARE, height=side, width=side, in_channels=inputs, out_channels=outputs)
        config = default_winograd_config(shape, LEVELS[level], threads, size)
        check_winograd_config(shape, LEVELS[level], config, size)


def test_kernels_are_chosen_by_cost() -> None:
    """Not where transforms outweigh products, nor where weights of 16 bits are read for few pixels; tiles of 2x2 where
    those of 4x4 are half empty."""
    target = LEVELS["avx2"]
    few = replace(SQUARE, in_channels=4, out_channels=8)
    tiny = replace(SQUARE, height=1, width=1, in_channels=512, out_channels=512)
    small = replace(SQUARE, height=6, width=6)
    shapes = (SQUARE, small, tiny, few)
    assert [winograd_size(shape, target, 1, (2, 4)) for shape in shapes] == [4, 2, None, None]
    # With VNNI four tiles of 2x2 take as many products as the definition.
    target = LEVELS["avx512_vnni"]
    assert [winograd_size(shape, target, 1, (2, 4)) for shape in shapes] == [4, None, None, None]
    assert winograd_size(SQUARE, target, 1, (2,)) is None


def test_large_filters_are_transformed_late() -> None:
    """An eighth of the bytes is read, if there are enough of them to make up for it, and of few pixels."""
    target = LEVELS["avx2"]
    sides = {64: 56, 128: 28, 256: 14, 512: 7}
    shapes = [
        replace(SQUARE, height=side, width=side, in_channels=n, out_channels=n)
        for n, side in sides.items()
    ]
    configs = [default_winograd_config(shape, target, 1, 4) for shape in shapes]
    assert [config.part > 0 for config in configs] == [False, False, True, True]
    late, early = (winograd_packing(shapes[2], target, 4, late) for late in (True, False))
    w = np.random.default_rng(0).integers(-128, 128, (256, 256, 3, 3), np.int8)
    assert early.pack(w).nbytes == 8 * late.pack(w).nbytes == 8 * w.nbytes
    assert late.pack(w).shape == late.stored_shape and early.pack(w).shape == early.stored_shape


def test_what_alone_is_tuned_is_taken() -> None:
    graph = _layer(Conv((1, 16, 12, 12), 16, (3, 3), pads=(1, 1, 1, 1)))
    families = ("qconv2d", *schedules.WINOGRAD_FAMILIES)
    target = LEVELS["avx2"]
    (default,) = _tasks(graph, {})
    tasks = [replace(default, family=family) for family in families]
    configs = {task.key: schedules.default_config(task) for task in tasks}
    for task in tasks:
        assert _tasks(graph, {task.key: configs[task.key]}) == [task]
    assert _tasks(graph, configs) == [default]
    assert target == default.target


def _layer(conv: Conv):
    """A model of one convolution, of weights whose products no 16 bits hold."""
    out = Quantization(1.0, 0, "uint8")
    weight = np.full(conv.w, 127, np.int8)
    bias, scale = np.zeros(conv.out, np.int32), np.ones(conv.out, np.float32)
    node = conv.node("layer", weight, bias, scale, out, out, low=0, high=255)
    shape = (1, conv.out, *conv.x[2:])
    inputs = {"layer/x": np.zeros(conv.x, np.uint8)}
    return kernels.graph_of([node], inputs, {"layer/y": (shape, "uint8")})


def _tasks(graph, configs: dict) -> list[KernelTask]:
    program = lower.lower(graph.copy(), LEVELS["avx2"], 1, configs)
    return [call.task for call in program.calls if call.task is not None]
