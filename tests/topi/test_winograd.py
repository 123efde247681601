"""Winograd's transforms give a multiple of the sums of a 3x3 filter, and nothing on the way exceeds its integers."""

import itertools

import numpy as np
import pytest

from lowgemm.packing import WINOGRAD_LARGEST_SUM, ConvShape, DotLayout, WinogradPacking
from lowgemm.tiling import WINOGRAD_CHANNELS

DATA = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
FILTER = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
SUMS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
DATA_4 = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
FILTER_4 = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]])
SUMS_4 = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 2]]
)
# By the size of tiles: transforms, and what the sums are multiplied with.
TRANSFORMS = {2: (DATA, FILTER, SUMS, 4), 4: (DATA_4, FILTER_4, SUMS_4, 576)}
CODES = {"uint8": (0, 255), "int8": (-128, 127)}


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("size", TRANSFORMS)
def test_sums_are_a_multiple_of_those_of_the_filter(size: int, dtype: str) -> None:
    data, filters, sums, multiple = TRANSFORMS[size]
    rng = np.random.default_rng(0)
    x = rng.choice([*CODES[dtype], 0, 1], (50, size + 2, size + 2))
    w = rng.choice([-128, 127, 0, -1], (50, 3, 3))
    products = (data @ x @ data.T) * (filters @ w @ filters.T)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    direct = np.einsum("nyxrc,nrc->nyx", windows, w)
    assert (sums @ products @ sums.T == multiple * direct).all()


@pytest.mark.parametrize("size", TRANSFORMS)
def test_weights_are_packed_transformed(size: int) -> None:
    filters = TRANSFORMS[size][1]
    w = np.random.default_rng(0).integers(-128, 128, (10, 6, 3, 3), np.int8)
    w[0] = -128
    shape = ConvShape(1, 5, 5, 6, 10, (3, 3))
    packing = WinogradPacking.of(shape, DotLayout(8, 2, "int16", "int16"), size)
    packed = packing.pack(w)
    assert packed.shape == packing.packed_shape == (2, size + 2, size + 2, 3, 8, 2)
    assert packed.dtype == np.int16
    want = filters @ w.astype(np.int64) @ filters.T
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


@pytest.mark.parametrize("dtype", CODES)
def test_tiles_of_4x4_fit_16_bits_and_leave_the_accumulator(dtype: str) -> None:
    """Products of pairs, too, are summed before anything wraps; and 64 accumulators are below 2^31."""
    low, high = CODES[dtype]
    data = largest(DATA_4, DATA_4, low, high)
    filters = largest(FILTER_4, FILTER_4, -128, 127)
    assert max(data.max(), filters.max()) < 2**15
    assert 2 * (data * filters).max() < 2**31
    assert 64 * WINOGRAD_LARGEST_SUM < 2**31 <= 64 * (WINOGRAD_LARGEST_SUM + 1)
    assert 576 == 64 * 9 and pow(9, -1, 2**32) * 9 % 2**32 == 1


def test_sizes_depend_on_the_largest_sum_of_any_codes() -> None:
    w = np.zeros((3, 115, 3, 3), np.int8)
    w[1, :114] = -128
    assert WinogradPacking.sizes(w) == (2, 4)
    w[1] = -128
    assert WinogradPacking.sizes(w) == (2,)
    # int8 codes have both signs: 128 times all weights, where uint8 ones have 255 times those of one sign.
    w[1, :, 0], w[1, :, 1], w[1, :, 2] = 127, -128, 0
    assert WinogradPacking.sizes(w) == (2, 4)
    assert WinogradPacking.sizes(np.zeros((0, 4, 3, 3), np.int8)) == (2, 4)
    solid = np.zeros((1, 256, 3, 3, 3), np.int8)
    solid[:, :, :, :, 1] = 127
    assert WinogradPacking.sizes(solid) == (2,)
