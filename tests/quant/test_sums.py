"""Which weights may be summed in 16 bits: those whose sums no codes make saturate."""

import numpy as np
import pytest

from lowgemm.quant import extreme_sums, sums_fit


def saturating(weights: np.ndarray, codes: np.ndarray, summed: int) -> np.ndarray:
    """Sums of 16-bit lanes as vpmaddubsw and vpaddw leave them, by their definitions; `(channels, sums)`."""
    w = weights.reshape(len(weights), -1, summed, 2, 2).astype(np.int64)
    products = w * codes.reshape(1, -1, summed, 2, 2)
    pairs = products.sum(-1).clip(-32768, 32767)
    wrapped = (pairs.sum(2) + 32768) % 65536 - 32768
    return wrapped.reshape(len(weights), -1)


@pytest.mark.parametrize("summed", [1, 2])
def test_sums_at_the_limit_do_not_saturate_and_beyond_they_do(summed: int) -> None:
    most = 64 // summed
    codes = np.full(8 * summed, 255)
    for sign in (1, -1):
        weights = np.full((1, 8 * summed), sign * most, np.int8)
        assert sums_fit(weights, summed)
        exact = sign * most * 255 * 2 * summed
        assert np.all(saturating(weights, codes, summed) == exact)
        weights[0, 5] += sign
        assert not sums_fit(weights, summed)
        true = (weights.reshape(1, -1, summed, 2, 2).astype(int) * 255).sum((2, 4))
        assert not np.array_equal(saturating(weights, codes, summed), true.reshape(1, -1))


def test_signs_are_summed_apart() -> None:
    """127 and -128 side by side reach neither end, 127 and 2 do."""
    assert extreme_sums(np.array([[127, -128, 0, 0], [127, 2, 0, 0]], np.int8), 1).tolist() == [
        128,
        129,
    ]


def test_the_second_sum_takes_the_same_half_of_the_next_four() -> None:
    halves = np.array([[100, 0, 0, 0, 28, 0, 0, 0], [100, 0, 0, 0, 0, 0, 29, 0]], np.int8)
    assert extreme_sums(halves, 2).tolist() == [128, 100]
    assert extreme_sums(halves, 1).tolist() == [100, 100]


def test_runs_are_continued_with_zeros() -> None:
    assert extreme_sums(np.full((2, 3, 5), -100, np.int8), 2).tolist() == [300, 300]
    assert extreme_sums(np.full((1, 1), -128, np.int8), 2).tolist() == [128]


def test_real_weights_are_summed_as_they_are() -> None:
    assert extreme_sums(np.array([[0.5, 0.25, -1.0, 0.0]], np.float32), 1).tolist() == [1.0]
