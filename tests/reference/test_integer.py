"""Integer products equal a sum written out in Python's integers, over full-range data."""

import itertools

import numpy as np
import pytest

from lowgemm.reference import conv2d_i32, gemm_i32


def full_range(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize("lhs_type", ["uint8", "int8"])
@pytest.mark.parametrize("rhs_type", ["uint8", "int8"])
def test_gemm_equals_sums_of_products(lhs_type: str, rhs_type: str):
    rng = np.random.default_rng(0)
    lhs, rhs = full_range(rng, (3, 17), lhs_type), full_range(rng, (17, 4), rhs_type)
    points = np.array([0, 3, -128, 127])
    acc = gemm_i32(lhs, rhs, 43, points)
    assert acc.dtype == np.int32
    for m, n in itertools.product(range(3), range(4)):
        exact = sum((int(lhs[m, k]) - 43) * (int(rhs[k, n]) - int(points[n])) for k in range(17))
        assert acc[m, n] == exact


def test_gemm_wraps_at_32_bits():
    depth = 70_000
    lhs, rhs = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    assert gemm_i32(lhs, rhs)[0, 0] == wrap(-255 * 128 * depth)


@pytest.mark.parametrize(
    ("strides", "pads", "dilations", "group"),
    [
        ((1, 1), (0, 0, 0, 0), (1, 1), 1),
        ((2, 1), (1, 0, 2, 1), (1, 2), 1),
        ((1, 3), (2, 2, 0, 0), (2, 1), 2),
        ((2, 2), (1, 1, 1, 1), (1, 1), 4),
    ],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_conv_equals_sums_of_products(strides, pads, dilations, group: int, layout: str):
    rng = np.random.default_rng(1)
    x = full_range(rng, (2, 7, 6, 4), "uint8")
    w = full_range(rng, (8, 4 // group, 3, 2), "int8")
    points = rng.integers(-5, 5, 8)
    given = x if layout == "NHWC" else x.transpose(0, 3, 1, 2)
    acc = conv2d_i32(given, w, 131, points, strides, pads, dilations, group, layout)
    if layout == "NCHW":
        acc = acc.transpose(0, 2, 3, 1)
    assert acc.dtype == np.int32
    for n, oy, ox, o in itertools.product(*map(range, acc.shape)):
        exact = 0
        first = o // (8 // group) * (4 // group)
        for i, r, c in itertools.product(range(4 // group), range(3), range(2)):
            y = oy * strides[0] + r * dilations[0] - pads[0]
            z = ox * strides[1] + c * dilations[1] - pads[1]
            if 0 <= y < 7 and 0 <= z < 6:
                exact += (int(x[n, y, z, first + i]) - 131) * (int(w[o, i, r, c]) - int(points[o]))
        assert acc[n, oy, ox, o] == exact
