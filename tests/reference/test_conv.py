"""Integer convolutions equal sums written out in Python's integers, for every rank, layout, group and padding."""

import itertools

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.reference import conv2d_i32, conv_acc16, conv_i32

LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def full_range(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def by_hand(x, w, x_point, points, strides, pads, dilations, group) -> dict[tuple, int]:
    """{(n, *position, channel): sum} of `x` `(n, ..., c)`, position by position and tap by tap."""
    rank = x.ndim - 2
    out, inside = w.shape[0], w.shape[1]
    sizes = [
        (x.shape[1 + d] + pads[d] + pads[rank + d] - dilations[d] * (w.shape[2 + d] - 1) - 1)
        // strides[d]
        + 1
        for d in range(rank)
    ]
    found = {}
    for at in itertools.product(range(x.shape[0]), *map(range, sizes), range(out)):
        n, *place, o = at
        exact = 0
        for tap in itertools.product(*map(range, w.shape[2:])):
            q = [
                p * s + t * d - b
                for p, s, t, d, b in zip(place, strides, tap, dilations, pads, strict=False)
            ]
            if not all(0 <= a < size for a, size in zip(q, x.shape[1:-1], strict=True)):
                continue
            for i in range(inside):
                value = int(x[(n, *q, o // (out // group) * inside + i)]) - x_point
                exact += value * (int(w[(o, i, *tap)]) - int(points[o]))
        found[at] = exact
    return found


def transposed_by_hand(x, w, x_point, points, strides, pads, dilations, group, extra):
    """The same, where each input position adds to the output positions that its taps reach."""
    rank = x.ndim - 2
    per_group, channels = w.shape[1], x.shape[-1]
    sizes = [
        (x.shape[1 + d] - 1) * strides[d]
        + dilations[d] * (w.shape[2 + d] - 1)
        + 1
        + extra[d]
        - pads[d]
        - pads[rank + d]
        for d in range(rank)
    ]
    found = dict.fromkeys(
        itertools.product(range(x.shape[0]), *map(range, sizes), range(per_group * group)), 0
    )
    for n, *q, i in itertools.product(*map(range, x.shape)):
        value = int(x[(n, *q, i)]) - x_point
        for tap in itertools.product(*map(range, w.shape[2:])):
            p = [
                a * s + t * d - b
                for a, s, t, d, b in zip(q, strides, tap, dilations, pads, strict=False)
            ]
            if not all(0 <= a < size for a, size in zip(p, sizes, strict=True)):
                continue
            for j in range(per_group):
                o = i // (channels // group) * per_group + j
                found[(n, *p, o)] += value * (int(w[(i, j, *tap)]) - int(points[o]))
    return found


# (spatial, in, out, kernel, strides, pads, dilations, group)
PLAIN = [
    ((9,), 3, 5, (3,), (1,), (1, 1), (1,), 1),
    ((9,), 4, 6, (4,), (2,), (3, 0), (2,), 2),
    ((7,), 3, 3, (1,), (3,), (0, 0), (1,), 3),  # depthwise, strided 1x1
    ((7, 6), 4, 8, (3, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((7, 6), 4, 8, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2), 1),
    ((7, 6), 4, 8, (3, 2), (1, 3), (2, 2, 0, 0), (2, 1), 2),
    ((7, 6), 4, 8, (3, 2), (2, 2), (1, 1, 1, 1), (1, 1), 4),  # two outputs a depthwise channel
    ((1, 1), 2, 2, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 2),  # nothing but padding around a pixel
    ((2, 2), 2, 2, (1, 1), (1, 1), (3, 0, 0, 3), (1, 1), 1),  # pads wider than the kernel
    ((3, 5, 4), 2, 4, (2, 3, 3), (1, 2, 1), (1, 1, 0, 0, 1, 2), (1, 1, 1), 1),
    ((4, 5, 4), 4, 4, (3, 1, 2), (2, 1, 1), (0, 0, 1, 1, 0, 0), (1, 1, 2), 2),
    ((3, 3, 3), 3, 6, (3, 3, 3), (2, 2, 2), (1,) * 6, (1, 1, 1), 3),
]
TRANSPOSED = [
    ((9,), 3, 5, (3,), (1,), (0, 0), (1,), 1, (0,)),
    ((5,), 4, 6, (4,), (3,), (1, 0), (2,), 2, (2,)),
    ((3, 4), 4, 6, (3, 3), (2, 2), (0, 0, 0, 0), (1, 1), 1, (0, 0)),
    ((3, 4), 4, 6, (3, 2), (2, 3), (1, 0, 0, 1), (2, 1), 2, (1, 2)),
    ((3, 4), 4, 4, (2, 2), (1, 2), (1, 1, 1, 1), (1, 1), 4, (0, 1)),
    ((2, 3, 2), 2, 4, (3, 2, 3), (2, 1, 2), (1, 0, 1, 0, 1, 1), (1, 1, 1), 2, (1, 0, 1)),
]


def compare(acc: np.ndarray, exact: dict[tuple, int], rank: int, layout: str) -> None:
    if layout == FIRST[rank]:
        acc = np.moveaxis(acc, 1, -1)
    assert acc.dtype == np.int32
    assert acc.shape == tuple(i + 1 for i in max(exact))
    assert all(acc[at] == value for at, value in exact.items())


@pytest.mark.parametrize("case", PLAIN, ids=str)
@pytest.mark.parametrize("layouts", [LAST, FIRST], ids=["last", "first"])
def test_conv_equals_sums_of_products(case, layouts: dict[int, str]):
    spatial, inputs, outputs, kernel, strides, pads, dilations, group = case
    rng = np.random.default_rng(1)
    x = full_range(rng, (2, *spatial, inputs), "uint8")
    w = full_range(rng, (outputs, inputs // group, *kernel), "int8")
    points = rng.integers(-128, 128, outputs)
    args = (strides, pads, dilations, group)
    layout = layouts[len(spatial)]
    given = x if layouts is LAST else np.moveaxis(x, -1, 1)
    acc = conv_i32(given, w, 131, points, *args, layout)
    compare(acc, by_hand(x, w, 131, points, *args), len(spatial), layout)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
@pytest.mark.parametrize("layouts", [LAST, FIRST], ids=["last", "first"])
def test_transposed_conv_equals_sums_of_products(case, layouts: dict[int, str]):
    spatial, inputs, outputs, kernel, strides, pads, dilations, group, extra = case
    rng = np.random.default_rng(2)
    x = full_range(rng, (2, *spatial, inputs), "int8")
    w = full_range(rng, (inputs, outputs // group, *kernel), "uint8")
    points = rng.integers(0, 256, outputs)
    args = (strides, pads, dilations, group)
    layout = layouts[len(spatial)]
    given = x if layouts is LAST else np.moveaxis(x, -1, 1)
    acc = conv_i32(given, w, -7, points, *args, layout, transposed=True, output_padding=extra)
    exact = transposed_by_hand(x, w, -7, points, *args, extra)
    compare(acc, exact, len(spatial), layout)


def test_one_zero_point_a_group_is_that_of_all_its_channels():
    rng = np.random.default_rng(3)
    x = full_range(rng, (1, 5, 6), "uint8")
    w = full_range(rng, (4, 3, 2), "int8")
    by_group = conv_i32(x, w, 9, np.array([3, -5]), group=2)
    assert (by_group == conv_i32(x, w, 9, np.array([3, 3, -5, -5]), group=2)).all()
    w = full_range(rng, (6, 2, 2), "int8")
    by_group = conv_i32(x, w, 9, np.array([3, -5]), group=2, transposed=True)
    each = conv_i32(x, w, 9, np.array([3, 3, -5, -5]), group=2, transposed=True)
    assert (by_group == each).all()


def test_sums_wrap_at_32_bits():
    x, w = np.full((1, 1, 70_000), 255, np.uint8), np.full((1, 70_000, 1), -128, np.int8)
    assert conv_i32(x, w)[0, 0, 0] == (-255 * 128 * 70_000 + 2**31) % 2**32 - 2**31


def test_two_axes_by_their_own_name():
    rng = np.random.default_rng(4)
    x, w = full_range(rng, (1, 4, 4, 2), "uint8"), full_range(rng, (3, 2, 3, 3), "int8")
    same = conv2d_i32(x, w, 5, 1, (2, 1), (1, 0, 0, 1)) == conv_i32(
        x, w, 5, 1, (2, 1), (1, 0, 0, 1)
    )
    assert same.all()


X, W = np.zeros((1, 4, 4, 2), np.uint8), np.zeros((3, 2, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        (X[0, 0], W, {}, "x has 2 axes; a convolution takes 3 to 5"),
        (X, W[0], {}, "w has 3 axes, expected 4 as x has"),
        (X, W, {"layout": "NWC"}, "layout is 'NWC'; for 4 axes it is 'NHWC' or 'NCHW'"),
        (X, W, {"layout": "NCHW"}, r"w \(3, 2, 3, 3\) is no \(out, in / group, ...\) for 4 channels"),
        (X, W, {"group": 2}, r"w \(3, 2, 3, 3\) is no \(out, in / group, ...\) for 2 channels in 2"),
        (X, W, {"transposed": True}, r"no \(in, out / group, ...\) for 2 channels in 1 groups"),
        (X, W, {"strides": (1,)}, r"strides is \(1,\); expected 2 integers of at least 1"),
        (X, W, {"pads": (0, 0, 0, -1)}, r"pads is \(0, 0, 0, -1\); expected 4 integers of at"),
        (X, W, {"w_zero_point": np.zeros(2)}, "w_zero_point has 2 elements, expected 1, 1 or 3"),
        (X, W, {"dilations": (2, 2)}, "the output is empty"),
        (X, W.swapaxes(0, 1), {"transposed": True, "pads": (0, 0, 7, 0)}, "the output is empty"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(x, w, options, message: str):
    with pytest.raises(InputError, match=message):
        conv_i32(x, w, **options)


@pytest.mark.parametrize("case", [*PLAIN, *TRANSPOSED], ids=str)
def test_16_bit_sums_of_small_numbers_are_the_exact_ones(case):
    """Windows, with padding and holes of the zero point, have the geometry of the exact convolution."""
    spatial, channels, out, kernel, strides, pads, dilations, group, *more = case
    rng = np.random.default_rng(16)
    transposed = bool(more)
    x = rng.integers(0, 8, (2, *spatial, channels)).astype(np.uint8)
    ends = (channels, out // group) if transposed else (out, channels // group)
    w = rng.integers(-8, 8, (*ends, *kernel)).astype(np.int8)
    zeros = rng.integers(-5, 5, out)
    options = {"transposed": transposed, "output_padding": more[0] if more else None}
    acc = conv_acc16(x, w, 7, zeros, strides, pads, dilations, group, **options)
    exact = conv_i32(x, w, 7, zeros, strides, pads, dilations, group, **options)
    assert acc.dtype == exact.dtype
    assert np.array_equal(acc, exact)
    w.flat[0] = 127
    split = conv_acc16(x, w, 7, zeros, strides, pads, dilations, group, outliers=True, **options)
    exact = conv_i32(x, w, 7, zeros, strides, pads, dilations, group, **options)
    assert np.array_equal(split, exact)


def test_a_window_is_one_chain_of_16_bit_sums():
    """Positions first, then channels: 3 x 100 elements are flushed once, in the third position."""
    x = np.full((1, 3, 100), 255, np.uint8)
    w = np.full((1, 100, 3), 127, np.int8)
    w[0, :, 1] = -128
    limit = 2**15 - 1
    narrow, wide = 0, 0
    for k in range(0, 300, 2):
        pair = int(np.clip(2 * 255 * int(w[0, k % 100, k // 100]), -limit - 1, limit))
        narrow = int(np.clip(narrow + pair, -limit - 1, limit))
        if k == 254:
            wide, narrow = narrow, 0
    assert conv_acc16(x, w).tolist() == [[[wide + narrow]]]
    assert wide + narrow != int(conv_i32(x, w)[0, 0, 0])
