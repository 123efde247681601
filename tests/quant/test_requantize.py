"""The two rounding policies, at ties and at the ends of int32."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowgemm.quant import FixedPoint, choose_fixed_point, requantize, requantize_fixed_point


def test_rne_rounds_ties_to_even_then_adds_the_zero_point():
    acc = np.array([1, 3, 5, -1, -3], np.int32)
    assert requantize(acc, 0.5, 1, "int8").tolist() == [1, 3, 3, 1, -1]


def test_rne_clamps():
    acc = np.array([2**31 - 1, -(2**31), 0], np.int32)
    assert requantize(acc, 1.0, 7).tolist() == [255, 0, 7]
    assert requantize(acc, 1.0, 7, lower=7, upper=200).tolist() == [200, 7, 7]


def test_rne_multiplier_for_every_channel():
    assert requantize(np.array([[10, 10]], np.int32), np.array([0.5, 2], np.float32)).tolist() == [
        [5, 20]
    ]


def test_fixed_point_rounds_ties_up():
    half = FixedPoint(2**30, 31)
    assert requantize_fixed_point(np.array([1, 3, -1, -3], np.int32), half, 0, "int8").tolist() == [
        1,
        2,
        0,
        -1,
    ]


def test_fixed_point_of_every_column_and_a_narrower_clamp():
    acc = np.array([[100, 100, -100]], np.int32)
    fixed = [choose_fixed_point(real) for real in (0.5, 2.0, 1.0)]
    assert requantize_fixed_point(acc, fixed, 10).tolist() == [[60, 210, 0]]
    assert requantize_fixed_point(acc, fixed, 10, lower=10, upper=200).tolist() == [[60, 200, 10]]


def test_fixed_point_at_the_ends_of_int32():
    acc = np.array([2**31 - 1, -(2**31)], np.int32)
    assert requantize_fixed_point(acc, choose_fixed_point(2.0**29)).tolist() == [255, 0]
    half = choose_fixed_point(0.5)
    assert requantize_fixed_point(acc, half, 0, "int32").tolist() == [2**30, -(2**30)]


@given(st.floats(1e-6, 1e9))
def test_fixed_point_is_close(real: float):
    fixed = choose_fixed_point(real)
    assert 2**30 <= fixed.multiplier < 2**31
    assert fixed.multiplier * 2.0**-fixed.shift == pytest.approx(real, rel=2**-30)


@pytest.mark.parametrize("real", [0.0, 2.0**30, -0.5, 1e-12, float("nan")])
def test_multipliers_outside_are_refused(real: float):
    with pytest.raises(ValueError, match="fixed-point multiplier"):
        choose_fixed_point(real)
