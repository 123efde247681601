"""Convolutions in 16-bit accumulators equal FBGEMM's definition: its im2col, then its acc16 product."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lowgemm import ops, reference

from convolutions import Convolution
from gemm_check import added, stage
from isa import isas
from kernels import full_range

# By what they try: every rank, windows that leave the input, holes, groups, pieces of 32 bytes and of less.
CASES = {
    "one axis": Convolution((2, 9, 5), 7, (3,), padding=(2, 1), dilations=2),
    "one pixel": Convolution((1, 1, 1, 1), 1, (1, 1)),
    "wide and deep": Convolution((1, 6, 7, 63), 40, (3, 3), padding=1),
    "strides": Convolution((2, 9, 8, 3), 16, (5, 3), strides=(2, 3), padding=(2, 0, 1, 2)),
    "groups": Convolution((1, 5, 6, 12), 8, (3, 2), padding=1, groups=4),
    "depthwise": Convolution((1, 4, 4, 3), 6, (2, 2), groups=3),
    "planes": Convolution((2, 4, 5, 3, 4), 9, (2, 3, 1), strides=(1, 2, 1), padding=1),
    "transposed": Convolution(
        (1, 3, 4, 6), 10, (3, 4), strides=(2, 3), padding=1, transposed=True, output_padding=1
    ),
    "transposed groups": Convolution(
        (2, 5, 8), 6, (3,), strides=2, padding=(2, 1), dilations=2, groups=2, transposed=True
    ),
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(316)


def sums_of(conv: Convolution, x: np.ndarray, w: np.ndarray, outliers: bool) -> np.ndarray:
    """The oracle's."""
    rank = len(conv.kernel)
    pads = each(conv.padding, rank)
    return reference.conv_acc16(
        x,
        w,
        conv.x_zero_point,
        conv.weight_zero_point,
        each(conv.strides, rank),
        pads if len(pads) == 2 * rank else pads * 2,
        each(conv.dilations, rank),
        conv.groups,
        transposed=conv.transposed,
        output_padding=each(conv.output_padding, rank),
        outliers=outliers,
    )


def each(value, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def pack(conv: Convolution, w: np.ndarray, level: str, **options) -> ops.PackedConvAcc16:
    return ops.pack_conv_acc16(
        w,
        x_zero_point=conv.x_zero_point,
        weight_zero_point=conv.weight_zero_point,
        strides=conv.strides,
        padding=conv.padding,
        dilations=conv.dilations,
        groups=conv.groups,
        transposed=conv.transposed,
        output_padding=conv.output_padding,
        target=level,
        **options,
    )


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", CASES)
def test_sums(rng, isa: str, case: str) -> None:
    """Whole weights, which saturate, and split ones; zero points on both sides, which padding is filled with."""
    plain = CASES[case]
    zeros = rng.integers(-9, 9, plain.out)
    for number, outliers in enumerate((False, True)):
        changes = {"x_zero_point": 43, "weight_zero_point": zeros} if number else {}
        conv = Convolution(**{**plain.__dict__, **changes})
        x, w = full_range(rng, conv.x, "uint8"), full_range(rng, conv.w, "int8")
        packed = pack(conv, w, isa, outliers=outliers)
        wanted = sums_of(conv, x, w, outliers)
        assert packed.out_shape(x.shape) == wanted.shape
        assert_array_equal(packed(x), wanted)
        assert_array_equal(packed(x), wanted)  # by the calls described before


@pytest.mark.parametrize("isa", isas())
def test_a_whole_window_is_one_chain(rng, isa: str) -> None:
    """Stretches of 256 are counted from the beginning of the window, not from that of each position."""
    conv = Convolution((1, 5, 5, 70), 5, (3, 3), padding=1, x_zero_point=255)
    x, w = np.full(conv.x, 255, np.uint8), full_range(rng, conv.w, "int8")
    w[0], w[1] = 127, -128
    wanted = sums_of(conv, x, w, False)
    assert (wanted != conv.sums(x, w)).mean() > 0.5
    assert_array_equal(pack(conv, w, isa)(x), wanted)


@pytest.mark.parametrize("isa", isas())
def test_small_weights_give_the_exact_sums(rng, isa: str) -> None:
    """Where no sum leaves 16 bits, it is the exact convolution, and outliers do not change that."""
    conv = Convolution((2, 7, 6, 8), 12, (3, 3), padding=1, groups=2, x_zero_point=3)
    x = rng.integers(0, 9, conv.x).astype(np.uint8)
    w = rng.integers(-9, 9, conv.w).astype(np.int8)
    assert_array_equal(pack(conv, w, isa)(x), conv.sums(x, w))
    w[1, 2], w[7, 0] = 127, -128
    x[...] = rng.integers(0, 256, conv.x)
    assert_array_equal(pack(conv, w, isa, outliers=True)(x), conv.sums(x, w))


@pytest.mark.parametrize("isa", isas())
def test_output_stage_sizes_and_threads(rng, isa: str) -> None:
    """One packed weight, several sizes, a residual, another stage later, bound arrays, one thread and two."""
    groups, out = 2, 10
    scale = np.full(out, 0.002, np.float32)
    output = ops.Output(
        "uint8",
        multiplier=scale,
        zero_point=5,
        bias=rng.integers(-1000, 1000, out, np.int32),
        activation="relu",
        scale=0.1,
        residual=ops.Residual("uint8", scale=0.1, zero_point=3, sum_scale=0.2, sum_zero_point=9),
    )
    plain = ops.Output("float32", multiplier=scale)
    threads = ops.get_num_threads()
    w = None
    packed = None
    for batch, *size in ((2, 1, 1), (2, 6, 5), (0, 3, 4), (1, 30, 41)):
        conv = Convolution((batch, *size, 6), out, (3, 3), padding=1, groups=groups, x_zero_point=7)
        if w is None:
            w = full_range(rng, conv.w, "int8")
            packed = pack(conv, w, isa, outliers=True, output=output)
        assert packed is not None
        x = full_range(rng, conv.x, "uint8")
        if not batch:
            other = np.zeros((0, *size, out), np.uint8)
            assert packed(x, residual=other).shape == packed.out_shape(x.shape)
            continue
        sums = sums_of(conv, x, w, True)
        other = full_range(rng, sums.shape, "uint8")
        wanted = reference.output_stage(
            sums, groups=groups, residual=added(output, other), **stage(output, out)
        )
        assert len(np.unique(wanted)) > (20 if sums.size > 200 else 1)
        try:
            for count in (1, 2):
                ops.set_num_threads(count)
                for _ in range(2):
                    assert_array_equal(packed(x, residual=other), wanted)
                found = np.empty_like(wanted)
                packed.bind(x, found, residual=other)()
                assert_array_equal(found, wanted)
        finally:
            ops.set_num_threads(threads)
        real = reference.output_stage(sums, groups=groups, **stage(plain, out))
        assert_array_equal(packed.with_output(plain)(x), real)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weight": np.zeros((4, 4, 1, 1), np.uint8)},
            "weight: expected int8, got uint8 of shape (4, 4, 1, 1)",
        ),
        ({"x_zero_point": 256}, "x_zero_point: expected an integer from 0 to 255, got 256"),
        ({"groups": 3}, "groups: 3 do not divide 4 channels of the weight"),
        (
            {"output": ops.Output("float32", multiplier=1.0, row_scale=True)},
            "output.row_scale: a convolution has none",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_weights(change: dict, message: str) -> None:
    with pytest.raises(ops.OperandError) as error:
        ops.pack_conv_acc16(**{"weight": np.zeros((4, 4, 1, 1), np.int8), **change})
    assert str(error.value) == message


def test_bad_input() -> None:
    packed = ops.pack_conv_acc16(np.zeros((4, 4, 1, 1), np.int8))
    with pytest.raises(ops.OperandError) as error:
        packed(np.zeros((1, 2, 2, 4), np.int8))
    assert str(error.value) == (
        "x: expected uint8 of shape (batch, height, width, 4), got int8 of shape (1, 2, 2, 4)"
    )
