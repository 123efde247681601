"""Packed convolutions equal the exact integers, over one to three axes, in groups, depthwise and transposed."""

import threading
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from lowgemm import ops, targets
from lowgemm.ops import Output, Residual, _conv_plan

from convolutions import Convolution
from gemm_check import same
from isa import isas
from kernels import full_range

Conv = Convolution
PLAIN = {
    "1d": Conv((1, 40, 12), 24, (3,), padding=1),
    "1d-strided-and-dilated": Conv((2, 33, 5), 20, (4,), 2, (1, 3), 3),
    "1d-in-blocks-of-columns": Conv((1, 700, 32), 48, (5,), padding=2),
    "1d-grouped": Conv((1, 21, 24), 36, (3,), padding=1, groups=3),
    "2d-unevenly-padded": Conv((1, 9, 10, 8), 16, (3, 2), (1, 2), (0, 1, 2, 0)),
    "2d-rows-in-blocks": Conv((1, 24, 26, 16), 32, (3, 3), padding=1),
    "2d-1x1-strided": Conv((1, 9, 8, 12), 16, (1, 1), 2),
    "2d-groups-of-32": Conv((1, 7, 7, 64), 64, (3, 3), padding=1, groups=2),
    "2d-groups-with-more-outputs": Conv((1, 6, 7, 16), 48, (3, 3), padding=1, groups=4),
    "2d-groups-dilated": Conv((1, 9, 9, 32), 32, (3, 3), padding=2, dilations=2, groups=8),
    "3d": Conv((1, 4, 7, 9, 8), 16, (3, 3, 3), padding=1),
    "3d-strided": Conv((2, 5, 9, 8, 6), 20, (3, 2, 3), (2, 1, 2), (1, 0, 1, 0, 1, 1)),
    "3d-dilated": Conv((1, 7, 6, 8, 4), 16, (3, 2, 2), 1, (2, 1, 0), (2, 1, 2)),
    "3d-grouped": Conv((1, 4, 5, 6, 24), 32, (2, 3, 3), padding=1, groups=4),
    "3d-window-of-one-plane": Conv((1, 4, 7, 8, 8), 16, (1, 3, 3), padding=(0, 1, 1)),
    "3d-window-of-planes-alone": Conv((1, 5, 4, 6, 8), 16, (3, 1, 1), padding=(1, 0, 0)),
    "3d-planes-of-padding": Conv((2, 1, 7, 9, 8), 16, (3, 3, 3), padding=1),
    "2d-rows-of-padding": Conv((1, 1, 9, 8), 16, (5, 3), padding=(3, 1)),
    "2d-all-of-padding": Conv((1, 2, 9, 8), 16, (2, 3), (9, 1), (4, 1, 3, 1), (2, 1)),
    "3d-1x1x1": Conv((2, 4, 9, 10, 8), 24, (1, 1, 1)),
    "3d-1x1x1-strided": Conv((1, 5, 6, 7, 8), 16, (1, 1, 1), (2, 1, 3)),
    "3d-1x1x1-strided-and-padded": Conv((2, 5, 6, 7, 8), 16, (1, 1, 1), (2, 3, 1), (1, 0, 1)),
}
DEPTHWISE = {
    "1d": Conv((1, 50, 20), 20, (7,), padding=3, groups=20),
    "1d-strided": Conv((2, 31, 16), 32, (4,), 3, (1, 2), 2, 16),
    "2d-1x9": Conv((1, 5, 20, 16), 16, (1, 9), padding=(0, 4), groups=16),
    "2d-11x11": Conv((1, 13, 12, 20), 20, (11, 11), padding=5, groups=20),
    "2d-two-outputs": Conv((1, 8, 9, 24), 48, (3, 3), 2, 1, groups=24),
    "2d-16-outputs": Conv((1, 5, 6, 5), 80, (3, 3), padding=1, groups=5),
    "3d": Conv((1, 4, 6, 7, 32), 32, (3, 3, 3), padding=1, groups=32),
    "3d-strided": Conv((2, 5, 7, 8, 19), 19, (3, 5, 3), (2, 2, 1), (1, 2, 0), groups=19),
    "3d-dilated": Conv((1, 6, 7, 9, 16), 32, (2, 3, 2), 1, (1, 2, 1), (2, 2, 3), 16),
    "3d-planes-of-padding": Conv((2, 2, 7, 9, 20), 20, (5, 3, 3), 1, (3, 1, 1), groups=20),
    "3d-many-rows-in-a-page": Conv((1, 5, 6, 28, 32), 32, (5, 5, 5), padding=2, groups=32),
}
TRANSPOSED = {
    "1d": Conv((1, 17, 12), 16, (4,), 2, 1, transposed=True),
    "2d-stride-1": Conv((1, 5, 6, 8), 16, (3, 2), 1, (1, 0), transposed=True),
    "2d-phases-alike": Conv((2, 5, 4, 8), 20, (2, 2), 2, transposed=True),
    "2d": Conv((1, 5, 7, 8), 16, (4, 3), 2, 1, output_padding=1, transposed=True),
    "2d-phases-without-taps": Conv((1, 4, 5, 8), 16, (2, 1), (3, 2), transposed=True),
    "2d-dilation-shares-a-factor": Conv((1, 6, 5, 8), 16, (2, 3), 2, 0, (2, 1), transposed=True),
    "2d-padded-beyond-the-kernel": Conv((1, 7, 8, 8), 16, (3, 3), 2, (4, 3, 2, 5), transposed=True),
    "2d-grouped": Conv((1, 5, 6, 12), 18, (3, 3), 2, 1, groups=3, transposed=True),
    "2d-depthwise": Conv((1, 5, 6, 32), 32, (4, 4), 2, 1, groups=32, transposed=True),
    "1d-depthwise": Conv((1, 9, 20), 20, (3,), 2, groups=20, transposed=True),
    "3d": Conv((1, 3, 4, 5, 8), 16, (2, 3, 3), (1, 2, 2), (0, 1, 1), transposed=True),
}
ALL = {
    **{f"plain-{name}": conv for name, conv in PLAIN.items()},
    **{f"depthwise-{name}": conv for name, conv in DEPTHWISE.items()},
    **{f"transposed-{name}": conv for name, conv in TRANSPOSED.items()},
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", ALL)
def test_sums(rng, isa: str, case: str) -> None:
    """Largest sums, changing signs and any data; the input's zero point at both ends, which is also the padding."""
    for kind, point in (("random", 43), ("extreme", 0), ("alternating", 255)):
        conv = replace(ALL[case], x_zero_point=point)
        x, w = conv.operands(rng, kind)
        conv.check(conv.pack(w, isa), x, w)


def test_padding_alone_is_not_multiplied(rng) -> None:
    """A window of three planes on one plane has the kernel of a window of one."""
    params = []
    for kernel, padding in (((3, 3, 3), 1), ((1, 3, 3), (0, 1, 1))):
        conv = Conv((1, 1, 7, 9, 8), 16, kernel, padding=padding)
        x, w = conv.operands(rng)
        with mock.patch.object(_conv_plan, "kernels", wraps=_conv_plan.kernels) as made:
            conv.pack(w, targets.host().level)(x)
        params.append(made.call_args.args[1])
    assert params[0] == params[1]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", [name for name in ALL if "-3d" in name])
def test_planes_whose_windows_stick_out_may_have_kernels_of_their_own(
    rng, isa: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little that saves, with results in all dtypes of two images."""
    monkeypatch.setattr(_conv_plan, "_LEAST_SAVED", 0)
    conv = replace(ALL[case], x=(2, *ALL[case].x[1:]), x_zero_point=43)
    x, w = conv.operands(rng)
    conv.check(conv.pack(w, isa), x, w)


def test_planes_are_apart_where_that_saves_enough(rng) -> None:
    """Two of eight planes have windows of two planes, not three; of few channels that is worth no kernel."""
    made = []
    for channels in (64, 8):
        conv = Conv((1, 8, 14, 14, channels), channels, (3, 3, 3), padding=1)
        x, w = conv.operands(rng)
        with mock.patch.object(_conv_plan, "kernels", wraps=_conv_plan.kernels) as kernels:
            conv.pack(w, targets.host().level)(x)
        made.append(len(kernels.call_args.args[1]))
    assert made == [3, 1]


# One of every way through the kernels.
WAYS = (
    "plain-2d-unevenly-padded",
    "plain-2d-rows-in-blocks",
    "plain-2d-groups-with-more-outputs",
    "plain-3d-strided",
    "depthwise-2d-two-outputs",
    "transposed-2d-phases-without-taps",
)


@pytest.mark.parametrize("isa", isas("avx2", "avx512"))
@pytest.mark.parametrize(
    "conv",
    [
        Conv((1, 40, 32), 24, (3,), padding=1),
        Conv((2, 6, 7, 96), 40, (1, 1)),
        Conv((1, 9, 10, 32), 20, (3, 3), 2, 1),
        Conv((1, 4, 5, 6, 32), 16, (2, 3, 3), padding=1),
        Conv((1, 6, 7, 80), 32, (3, 3), 1, 1, groups=2),
    ],
    ids=["1d", "2d-1x1", "2d-strided", "3d", "groups"],
)
def test_words_are_summed_in_pairs_if_weights_let_them(
    rng, isa: str, conv: Conv, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    real = _conv_plan.kernel_for

    def kernel_for(*given):
        found.append(real(*given))
        return found[-1]

    monkeypatch.setattr(_conv_plan, "kernel_for", kernel_for)
    x, w = conv.operands(rng, "words-in-pairs")
    conv.check(conv.pack(w, isa), x, w)
    assert any(kernel.target.paired for kernel in found)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", ["plain-1d", "plain-3d-grouped", "depthwise-3d", "transposed-1d"])
def test_signed_input(rng, isa: str, case: str) -> None:
    for kind, point in (("random", -128), ("extreme", 127), ("alternating", 3)):
        conv = replace(ALL[case], x_dtype="int8", x_zero_point=point)
        x, w = conv.operands(rng, kind)
        conv.check(conv.pack(w, isa), x, w)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", WAYS)
def test_zero_points_of_the_weight(rng, isa: str, case: str) -> None:
    """For all, groups and channels; both ends, where weights without them take 9 bits, and the sums of windows."""
    base = replace(ALL[case], x_zero_point=200)
    for points in (
        127,
        -128,
        rng.integers(-128, 128, base.groups),
        rng.integers(-128, 128, base.out),
    ):
        conv = replace(base, weight_zero_point=points)
        x, w = conv.operands(rng)
        w.flat[:2] = -128, 127
        conv.check(conv.pack(w, isa), x, w)


@pytest.mark.parametrize("isa", isas())
def test_unsigned_weight(rng, isa: str) -> None:
    conv = replace(PLAIN["2d-unevenly-padded"], x_zero_point=7)
    for point in (0, 128, 255, rng.integers(0, 256, conv.out)):
        moved = replace(conv, weight_zero_point=point)
        x, _ = conv.operands(rng)
        w = full_range(rng, conv.w, "uint8")
        moved.check(moved.pack(w, isa), x, w)


OUTPUTS = {
    "uint8": Output("uint8", 1.0, zero_point=31, activation="leaky_relu", bias_scale=0.5),
    "int8-table": Output("int8", 1.0, zero_point=-5, table=np.arange(256)[::-1].astype(np.int8)),
    "uint8-residual": Output(
        "uint8", 1.0, scale=0.1, activation="relu6", residual=Residual("int8", 0.2, -3, 0.1, 17)
    ),
    "uint8-fixed-point": Output("uint8", 0.5, zero_point=128, rounding="fixed_point"),
    "float32": Output("float32", 1.0, activation="relu", residual=Residual("float32")),
    "bfloat16": Output("bfloat16", 1.0),
}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    "case", ["plain-3d-strided", "depthwise-2d-two-outputs", "transposed-2d-phases-alike"]
)
def test_output_stages(rng, isa: str, case: str, output: str) -> None:
    """Behind dense, depthwise and interleaved results, on channels that fill no vector."""
    form, conv = OUTPUTS[output], replace(ALL[case], x_zero_point=100)
    x, w = conv.operands(rng)
    sums = conv.sums(x, w)
    codes = form.dtype in ("uint8", "int8")
    multiplier = rng.uniform(0.5, 1.5, conv.out) * (60 if codes else 1) / sums.std()
    bias = rng.normal(0, sums.std() / 2, conv.out)
    kind = np.int32 if form.rounding == "fixed_point" else np.float32
    form = replace(
        form,
        multiplier=multiplier.astype(np.float32),
        bias=bias.astype(kind),
        bias_scale=form.bias_scale or (1.0 if codes else None),
    )
    conv = replace(conv, output=form)
    extras = {}
    if form.residual:
        floats = form.residual.dtype == "float32"
        any_ = rng.normal(0, 1, sums.shape).astype(np.float32)
        extras["residual"] = any_ if floats else full_range(rng, sums.shape, form.residual.dtype)
    packed = conv.pack(w, isa)
    conv.check(packed, x, w, **extras)
    # Again, by calls that were described before, and with other arrays.
    moved = {name: value.copy() for name, value in extras.items()}
    conv.check(packed, x[::-1].copy(), w, **moved)


@pytest.mark.parametrize("isa", isas())
def test_sizes_share_one_packed_weight(rng, isa: str) -> None:
    conv = replace(PLAIN["1d"], x_zero_point=3)
    _, w = conv.operands(rng)
    packed = conv.pack(w, isa)
    for shape in ((1, 40, 12), (3, 40, 12), (1, 2, 12), (0, 40, 12), (1, 40, 12)):
        x = full_range(rng, shape, "uint8")
        if shape[0]:
            conv.check(packed, x, w)
        else:
            assert packed(x).shape == (0, 40, 24)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_given_and_bound_outputs(rng, isa: str, transposed: bool) -> None:
    """They are written whole and to the last element; a bound call takes what the arrays hold then."""
    conv = TRANSPOSED["2d-phases-alike"] if transposed else PLAIN["1d"]
    x, w = conv.operands(rng)
    packed = conv.pack(w, isa)
    wanted = conv.expected(x, w)
    memory = np.full(wanted.size + 32, -7, np.int32)
    out = memory[16:-16].reshape(wanted.shape)
    assert packed(x, out) is out
    same(out, wanted)
    assert (memory[:16] == -7).all() and (memory[-16:] == -7).all()
    run = packed.bind(x, out)
    for _ in range(2):
        x[...] = full_range(rng, x.shape, "uint8")
        run()
        same(out, conv.expected(x, w))


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_arrays_at_any_address(rng, isa: str) -> None:
    conv = PLAIN["1d"]
    x, w = conv.operands(rng)
    packed, wanted = conv.pack(w, isa), conv.expected(x, w)
    for offset in (1, 3, 13):
        moved = np.empty(x.size + offset, np.uint8)[offset:].reshape(x.shape)
        moved[...] = x
        out = np.empty(wanted.size + offset, np.int32)[offset:].reshape(wanted.shape)
        same(packed(moved, out), wanted)


@pytest.mark.parametrize("isa", isas())
def test_with_output_leaves_the_first_as_it_is(rng, isa: str) -> None:
    sums = replace(PLAIN["1d"], x_zero_point=9)
    other = replace(sums, output=Output("uint8", multiplier=1e-3, zero_point=7))
    x, w = sums.operands(rng)
    packed = sums.pack(w, isa)
    other.check(packed.with_output(other.output), x, w)
    sums.check(packed, x, w)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_weight_in_fbgemms_layout(rng, isa: str, transposed: bool) -> None:
    """(groups, *kernel, in, out), transposed (groups, out, *kernel, in)."""
    conv = TRANSPOSED["2d-grouped"] if transposed else PLAIN["2d-groups-with-more-outputs"]
    x, w = conv.operands(rng)
    first, second, *kernel = w.shape
    split = w.reshape(conv.groups, first // conv.groups, second, *kernel)
    other = np.moveaxis(split, 1, -1)
    other = other if transposed else np.moveaxis(other, 1, -2)
    conv.check(conv.pack(np.ascontiguousarray(other), isa, layout="fbgemm"), x, w)


@pytest.mark.parametrize("isa", isas())
def test_any_number_of_threads(rng, isa: str) -> None:
    """The same integers on one thread and on several, and from several callers at a time."""
    conv = PLAIN["1d-in-blocks-of-columns"]
    x, w = conv.operands(rng)
    wanted, before = conv.expected(x, w), ops.get_num_threads()
    found: list[np.ndarray] = []
    try:
        for threads in (1, 2, 3):
            ops.set_num_threads(threads)
            packed = conv.pack(w, isa)
            callers = [
                threading.Thread(target=lambda p=packed: found.append(p(x))) for _ in range(4)
            ]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
    finally:
        ops.set_num_threads(before)
    assert len(found) == 12
    for each in found:
        same(each, wanted)


@pytest.mark.parametrize("isa", isas())
def test_one_number_or_one_for_each_axis(rng, isa: str) -> None:
    conv = PLAIN["2d-rows-in-blocks"]
    x, w = conv.operands(rng)
    wanted = conv.expected(x, w)
    paddings: list[Any] = [1, (1, 1), [1, 1, 1, 1], np.ones(4, np.int64)]
    for padding in paddings:
        packed = ops.pack_conv(w, padding=padding, strides=(1, 1), target=isa)
        same(packed(x), wanted)
