"""Winograd's transforms give four times the sums of a 3x3 filter, and nothing on the way exceeds 32 bits."""

import itertools

import numpy as np
import pytest

from lowgemm.packing import ConvShape, DotLayout, WinogradPacking
from lowgemm.tiling import WINOGRAD_CHANNELS

DATA = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
FILTER = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
SUMS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
CODES = {"uint8": (0, 255), "int8": (-128, 127)}


@pytest.mark.parametrize("dtype", CODES)
def test_sums_are_four_times_those_of_the_filter(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([*CODES[dtype], 0, 1], (50, 4, 4))
    w = rng.choice([-128, 127, 0, -1], (50, 3, 3))
    products = (DATA @ x @ DATA.T) * (FILTER @ w @ FILTER.T)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    direct = np.einsum("nyxrc,nrc->nyx", windows, w)
    assert (SUMS @ products @ SUMS.T == 4 * direct).all()


def test_weights_are_packed_transformed() -> None:
    w = np.random.default_rng(0).integers(-128, 128, (10, 6, 3, 3), np.int8)
    w[0] = -128
    shape = ConvShape(1, 5, 5, 6, 10, (3, 3))
    packing = WinogradPacking.of(shape, DotLayout(8, 2, "int16", "int16"))
    packed = packing.pack(w)
    assert packed.shape == packing.packed_shape == (2, 4, 4, 3, 8, 2) and packed.dtype == np.int16
    want = FILTER @ w.astype(np.int64) @ FILTER.T
    for o, i in itertools.product(range(10), range(6)):
        assert (packed[o // 8, :, :, i // 2, o % 8, i % 2] == want[o, i]).all()
    assert not packed[1, ..., 2:, :].any()


def largest(rows: np.ndarray, columns: np.ndarray, low: int, high: int) -> np.ndarray:
    """The largest magnitude of each element of `rows @ codes @ columns.T`."""
    factors = np.einsum("ia,jb->ijab", rows, columns).reshape(len(rows), len(columns), -1)
    up, down = np.maximum(factors, 0).sum(-1), np.maximum(-factors, 0).sum(-1)
    return np.maximum(up * high - down * low, down * high - up * low)


@pytest.mark.parametrize("dtype", CODES)
def test_no_sum_of_so_many_channels_exceeds_32_bits(dtype: str) -> None:
    low, high = CODES[dtype]
    products = largest(DATA, DATA, low, high) * largest(FILTER, FILTER, -128, 127)
    assert largest(DATA, DATA, low, high).max() < 2**15
    # A row of A^T M is twice a convolution down the columns, of what is transformed along rows alone.
    along = largest(np.eye(1, dtype=int), DATA, low, high)[0]
    halves = 2 * 3 * along * largest(np.eye(1, dtype=int), FILTER, -128, 127)[0]
    whole = 4 * 9 * max(-low, high) * 128
    # Of the three terms of a sum, any two: the sum without the third one.
    partial = max((halves + products).max(), (whole + halves).max())
    assert max(products.max(), halves.max(), whole) <= partial
    assert partial * WINOGRAD_CHANNELS < 2**31
    assert dtype == "int8" or partial * (WINOGRAD_CHANNELS + 1) >= 2**31
