"""Convolutions of shapes that nobody thought of equal the exact integers."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conv_check import Conv, check
from isa import isas

PADS = st.tuples(*[st.integers(0, 2)] * 4)


@st.composite
def convolutions(draw) -> Conv:
    """Any kernel up to 4x4 (5x5 with dilation), dense, grouped or depthwise, that fits its image."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    each_in, each_out = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    if draw(st.booleans()) and groups == 1:  # depthwise
        groups, each_in, each_out = draw(st.integers(2, 35)), 1, draw(st.sampled_from([1, 1, 2]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = draw(PADS)
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 12)))
    for axis in (0, 1):
        room = size[axis] + pads[axis] + pads[axis + 2]
        assume(room >= dilations[axis] * (kernel[axis] - 1) + 1)
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    batch = draw(st.sampled_from([1, 1, 1, 2]))
    conv = Conv(
        (batch, groups * each_in, *size),
        groups * each_out,
        kernel,
        strides,
        pads,
        dilations,
        groups,
    )
    return conv


@pytest.mark.parametrize("level", isas())
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(conv=convolutions(), dtype=st.sampled_from(["uint8", "int8"]))
def test_any_convolution(level: str, conv: Conv, dtype: str) -> None:
    check(conv, level, dtype, dtype, kinds=("random", "alternating"))
