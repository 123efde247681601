"""Conversions to 16-bit floats at every tie, and of what is no number."""

import ml_dtypes
import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import from_bfloat16, to_bfloat16, to_float16


def floats(*bits: int) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


def test_every_bfloat16_and_its_neighbours_are_rounded_to_nearest_even():
    upper = np.arange(2**16, dtype=np.uint32)[:, None] << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (upper | lower).view(np.float32)
    x = x[np.isfinite(x)]
    with np.errstate(over="ignore"):
        expected = x.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert (to_bfloat16(x) == expected).all()


def test_the_named_policies_differ_at_even_ties():
    x = floats(0x3F808000, 0x3F818000, 0xBF808000, 0x3F80FFFF)
    assert to_bfloat16(x).tolist() == [0x3F80, 0x3F82, 0xBF80, 0x3F81]
    assert to_bfloat16(x, "half_up").tolist() == [0x3F81, 0x3F82, 0xBF81, 0x3F81]


def test_nan_stays_nan_unless_the_policy_adds_blindly():
    x = floats(0x7FFFFFFF, 0xFF800001, 0x7F800000)
    assert to_bfloat16(x).tolist() == [0x7FFF, 0xFFC0, 0x7F80]
    assert to_bfloat16(x, "half_up").tolist() == [0x8000, 0xFF80, 0x7F80]
    with pytest.raises(InputError, match="rounding is 'up'; expected 'rne' or 'half_up'"):
        to_bfloat16(x, "up")


def test_back_to_float_is_exact():
    bits = np.arange(2**16).astype(np.uint16).reshape(2, -1)
    back = from_bfloat16(bits)
    assert (back.view(np.uint32) == bits.astype(np.uint32) << 16).all()
    numbers = ~np.isnan(back)
    assert (to_bfloat16(back)[numbers] == bits[numbers]).all()


def test_float16_rounds_to_even_and_clips_on_request():
    x = np.array([2049, 2051, 65519, 65520, -1e9, np.nan], np.float32)
    np.testing.assert_array_equal(
        to_float16(x), np.array([2048, 2052, 65504, np.inf, -np.inf, np.nan], np.float16)
    )
    np.testing.assert_array_equal(
        to_float16(x, clip=True), np.array([2048, 2052, 65504, 65504, -65504, np.nan], np.float16)
    )
