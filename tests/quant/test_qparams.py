"""Choosing scale and zero point: ranges with known parameters, and properties over random ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowgemm.quant import (
    choose_qparams,
    choose_symmetric_scales,
    min_max,
    quantize_linear,
)

ends = st.floats(-1e4, 1e4, width=32)


@pytest.mark.parametrize(
    ("low", "high", "qmin", "qmax", "scale", "zero_point"),
    [
        (-1.0, 1.55, 0, 255, 0.01, 100),
        (0.5, 2.55, 0, 255, 0.01, 0),  # widened to hold 0
        (-2.55, -0.5, 0, 255, 0.01, 255),
        (-1.28, 1.27, -128, 127, 0.01, 0),
        (0.0, 0.0, 0, 255, 0.1, 0),  # nothing to scale by
    ],
)
def test_known_ranges(low, high, qmin, qmax, scale, zero_point):
    params = choose_qparams(low, high, qmin, qmax)
    assert params.scale == np.float32(scale)
    assert params.zero_point == zero_point


@given(ends, ends)
def test_zero_is_exact_and_the_range_is_covered(a: float, b: float):
    low, high = min(a, b), max(a, b)
    params = choose_qparams(low, high)
    assert 0 <= params.zero_point <= 255
    assert quantize_linear(np.zeros(()), params.scale, params.zero_point) == params.zero_point
    reach = params.scale * (np.array([0, 255]) - params.zero_point)
    # The zero point is rounded: an end may miss by half a step.
    assert reach[0] - params.scale * 0.51 <= min(low, 0)
    assert reach[1] + params.scale * 0.51 >= max(high, 0)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1e-40), (-1e-9, 1e-9)])
def test_tiny_ranges_get_a_usable_scale(low: float, high: float):
    assert choose_qparams(low, high).scale >= np.float32(6.1e-5)


def test_a_scale_without_a_reciprocal_is_a_tenth():
    """2**-128 has an infinite one in float32, what follows has not, and gets FBGEMM's least scale."""
    for scale, wanted in ((1e-40, 0.1), (2.0**-128, 0.1), (2.0**-128 * (1 + 2.0**-20), 6.1e-5)):
        assert choose_qparams(0.0, 255 * scale).scale == np.float32(wanted)


def test_the_zero_point_comes_from_the_end_of_smaller_terms():
    """Ranges whose ends give codes on either side of a tie, because the scale is rounded to float32."""
    assert choose_qparams(-5.495619297027588, 1.7094342708587646, -128, 127).zero_point == 67
    assert choose_qparams(-0.5940067768096924, 2.0402841567993164, -128, 127).zero_point == -70
    assert choose_qparams(-5.495619297027588, 1.7094342708587646).zero_point == 194


def test_fbgemm_symmetric_example():
    params = choose_qparams(-1.6165, 0.5685, -128, 127, symmetric=True)
    assert params.scale == np.float32(0.012628906)
    assert params.zero_point == 0


@pytest.mark.parametrize(
    ("low", "high", "qmin", "qmax", "scale", "zero_point"),
    [
        (-1.27, 0.5, -128, 127, 1.27 / 128, 0),
        (-0.5, 1.27, -128, 127, 0.01, 0),
        (-1.27, 0.5, 0, 255, 1.27 / 128, 128),  # the middle is 127.5
        (0.0, 2.55, 0, 255, 0.01, 0),  # 0 is an end: nothing to make symmetric
        (-2.55, 0.0, -128, 127, 0.01, 127),
    ],
)
def test_symmetric_ranges(low, high, qmin, qmax, scale, zero_point):
    params = choose_qparams(low, high, qmin, qmax, symmetric=True)
    assert params.scale == pytest.approx(scale, rel=1e-6)
    assert params.zero_point == zero_point


@pytest.mark.parametrize(
    ("high", "scale"),
    [(2.55, 2.0**-6), (255 / 64, 2.0**-6), (255.0, 1.0), (256.0, 2.0), (510.0, 2.0), (600.0, 4.0)],
)
def test_power_of_two_scales_are_the_next_above(high: float, scale: float):
    assert choose_qparams(0, high, power_of_two=True).scale == scale


@given(ends, ends, st.booleans())
def test_options_keep_zero_exact_and_the_range_covered(a: float, b: float, symmetric: bool):
    low, high = min(a, b), max(a, b)
    params = choose_qparams(low, high, -128, 127, symmetric=symmetric, power_of_two=True)
    assert -128 <= params.zero_point <= 127
    if params.scale > np.float32(6.1e-5):
        assert np.frexp(params.scale)[0] == 0.5
    if symmetric and low < 0 < high:
        assert params.zero_point == 0
    reach = params.scale * (np.array([-128, 127]) - params.zero_point)
    assert reach[0] - params.scale * 0.51 <= min(low, 0)
    assert reach[1] + params.scale * 0.51 >= max(high, 0)


def test_least_and_greatest():
    assert min_max(np.array([[3, -2], [7, 0]], np.float32)) == (-2, 7)
    assert min_max(np.zeros((0, 3), np.float32)) == (0, 0)


def test_symmetric_scales_along_an_axis():
    weight = np.array([[1, -2], [0, 0], [0.5, 0.25]], np.float32)
    scales = choose_symmetric_scales(weight, 0)
    np.testing.assert_allclose(scales, [2 / 127, 1, 0.5 / 127], rtol=1e-6)
    assert choose_symmetric_scales(weight, None).shape == ()
