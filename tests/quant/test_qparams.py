"""Choosing scale and zero point: ranges with known parameters, and properties over random ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowgemm.quant import choose_qparams, choose_symmetric_scales, quantize_linear

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


def test_symmetric_scales_along_an_axis():
    weight = np.array([[1, -2], [0, 0], [0.5, 0.25]], np.float32)
    scales = choose_symmetric_scales(weight, 0)
    np.testing.assert_allclose(scales, [2 / 127, 1, 0.5 / 127], rtol=1e-6)
    assert choose_symmetric_scales(weight, None).shape == ()
