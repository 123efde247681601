"""Group-wise codes: each group of each column by its own scale."""

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import dequantize_groups, quantize_groups

F = np.float32


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group_size", [1, 4, 5, 100])  # of a depth of 12: even, uneven, all of it
def test_every_element_is_that_of_its_group(bits: int, group_size: int):
    weight = np.random.default_rng(bits).normal(size=(12, 3)).astype(F)
    weight[:group_size, 1] = 0
    codes, scales = quantize_groups(weight, group_size, bits)
    back = dequantize_groups(codes, scales, group_size)
    top = 2 ** (bits - 1) - 1
    assert codes.dtype == np.int8
    for k, n in np.ndindex(weight.shape):
        g = k // group_size
        peak = np.abs(weight[g * group_size : (g + 1) * group_size, n]).max()
        scale = F(float(peak) / top) if peak else F(1)
        assert scales[g, n] == scale
        assert codes[k, n] == np.clip(np.rint(weight[k, n] / scale), -top, top)
        assert back[k, n] == scale * F(codes[k, n])
    assert np.abs(codes).max() == top


def test_zero_points_are_taken_off_each_group():
    codes = np.array([[0, 15], [7, 8], [3, 4]], np.uint8)
    scales, points = np.array([[0.5, 2], [1, 4]], F), np.array([[8, 7], [0, 15]])
    back = dequantize_groups(codes, scales, 2, points)
    assert back.dtype == F
    assert back.tolist() == [[-4, 16], [-0.5, 2], [3, -44]]


def test_what_does_not_fit_is_refused():
    weight = np.ones((4, 2), F)
    with pytest.raises(InputError, match="bits is 1; expected 2 to 8"):
        quantize_groups(weight, 2, 1)
    with pytest.raises(InputError, match="group_size is 0; expected at least 1"):
        quantize_groups(weight, 0)
    with pytest.raises(InputError, match=r"scales is \(2, 2\); expected \(4, 2\)"):
        dequantize_groups(np.ones((4, 2), np.int8), np.ones((2, 2), F), 1)
