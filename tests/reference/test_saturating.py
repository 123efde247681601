"""16-bit sums saturate pair by pair, in the order of the depth, and lose nothing where they fit."""

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.reference import FLUSH_DEPTH, gemm_acc16, gemm_i32, gemm_maddubs, split_outliers


def clip16(value: int) -> int:
    return max(-(2**15), min(2**15 - 1, value))


def acc16_by_hand(a: list[int], b: list[int]) -> int:
    """One element, as the loop over pairs."""
    wide = narrow = 0
    a, b = [*a, 0], [*b, 0]
    for k in range(0, len(a) - 1, 2):
        narrow = clip16(narrow + clip16(a[k] * b[k] + a[k + 1] * b[k + 1]))
        if k % FLUSH_DEPTH == FLUSH_DEPTH - 2:
            wide, narrow = wide + narrow, 0
    return wide + narrow


def maddubs_by_hand(a: list[int], b: list[int]) -> int:
    a, b = [*a, 0], [*b, 0]
    pairs = range(0, len(a) - 1, 2)
    return sum(clip16(a[k] * b[k] + a[k + 1] * b[k + 1]) for k in pairs)


# One element, an odd one, one flush less and more, several with a tail.
DEPTHS = [1, 2, 5, 254, 256, 257, 258, 700]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("product", "by_hand"), [(gemm_acc16, acc16_by_hand), (gemm_maddubs, maddubs_by_hand)]
)
def test_every_element_is_that_of_the_loop(depth: int, product, by_hand):
    rng = np.random.default_rng(depth)
    lhs = rng.integers(0, 256, (3, depth)).astype(np.uint8)
    rhs = rng.integers(-128, 128, (depth, 5)).astype(np.int8)
    lhs[0], rhs[:, 0], rhs[:, 1] = 255, 127, -128  # every pair saturates, up and down
    acc = product(lhs, rhs)
    assert acc.dtype == np.int32
    expected = [[by_hand(row, column) for column in rhs.T.tolist()] for row in lhs.tolist()]
    assert acc.tolist() == expected
    if depth > 2:
        assert (acc != gemm_i32(lhs, rhs)).any()


def test_groups_and_transposes_are_those_of_the_exact_product():
    rng = np.random.default_rng(1)
    lhs = rng.integers(0, 256, (2, 3, 600)).astype(np.uint8)
    rhs = rng.integers(-128, 128, (600, 4)).astype(np.int8)
    for product in (gemm_acc16, gemm_maddubs):
        parts = [product(lhs[..., :300], rhs[:300]), product(lhs[..., 300:], rhs[300:])]
        whole = product(lhs, rhs, groups=2)
        assert (whole == np.concatenate(parts, axis=-1)).all()
        each = rhs.reshape(2, 300, 4).swapaxes(1, 2).reshape(8, 300)
        options = {"lhs_transposed": True, "rhs_transposed": True, "groups": 2}
        assert (whole == product(lhs.swapaxes(1, 2), each, **options)).all()


def test_7_bit_weights_never_saturate_a_pair():
    lhs = np.full((1, 512), 255, np.uint8)
    for weight in (-64, 64):
        rhs = np.full((512, 1), weight, np.int8)
        assert (gemm_maddubs(lhs, rhs) == gemm_i32(lhs, rhs)).all()


@pytest.mark.parametrize("bits", range(9))
def test_dense_part_and_outliers_make_the_weight(bits: int):
    weight = np.arange(-128, 128).astype(np.int8).reshape(32, 8)
    dense, outliers = split_outliers(weight, bits)
    assert (dense + outliers.to_dense() == weight).all()
    assert not (dense * outliers.to_dense()).any()
    half = 2**bits // 2
    inside = [w for w in range(-128, 128) if -half <= w < half]
    assert sorted(dense[dense != 0].tolist()) == [w for w in inside if w]
    assert outliers.values.size == 256 - max(len(inside), 1)  # a weight of 0 is never kept


def test_wrong_types_are_refused():
    with pytest.raises(InputError, match="lhs and rhs are int8 and int8, expected uint8 and int8"):
        gemm_acc16(np.zeros((1, 2), np.int8), np.zeros((2, 1), np.int8))
    with pytest.raises(InputError, match="bits is 9; expected 0 to 8"):
        split_outliers(np.zeros((1, 1), np.int8), 9)
