"""The fused multiply-add equals the exact sum, rounded to float32 once: on any bits, and where two roundings fail."""

from fractions import Fraction

import numpy as np
import pytest

from lowgemm.quant import fma


def rounded_once(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """The float32 nearest to a * b + c, ties to even, by exact fractions."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near = np.float32(
        float(exact)
    )  # within a unit in the last place: float() rounds once, float32 once more
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    assert np.isfinite(around).all()
    return min(around, key=lambda v: (abs(Fraction(float(v)) - exact), v.view(np.int32) & 1))


def check(a, b, c) -> None:
    for x, y, z, found in zip(a, b, c, fma(a, b, c), strict=True):
        assert found == rounded_once(x, y, z), (x, y, z)


@pytest.mark.parametrize("spread", [0, 4, 30, 60])
def test_any_numbers_are_rounded_once(spread: int):
    rng = np.random.default_rng(spread)
    a, b, c = rng.normal(size=(3, 3000)).astype(np.float32)
    check(a, b, np.ldexp(c, rng.integers(-spread, spread + 1, c.size)).astype(np.float32))


def test_subnormal_results_are_rounded_once():
    rng = np.random.default_rng(1)
    a, b = np.ldexp(rng.normal(size=(2, 1000)).astype(np.float32), [[-70], [-72]])
    c = np.ldexp(rng.normal(size=1000).astype(np.float32), -140)
    check(a.astype(np.float32), b.astype(np.float32), c.astype(np.float32))


@pytest.mark.parametrize(("sign", "nearest"), [(1, 1 + 2.0**-23), (-1, 1 + 2.0**-23)])
def test_what_float64_takes_for_a_tie_is_none(sign: int, nearest: float):
    """1 + 2**-23 plus or minus a bit less than half a unit: float64 rounds that to the half, and the tie to even."""
    a, b = np.float32(1 + 2**-18), np.float32(sign * (1 - 2**-18) * 2**-24)
    c = np.float32(1 + 2**-23)
    twice = np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    assert twice != nearest
    assert fma(a, b, c) == nearest == rounded_once(a, b, c)


def test_infinities_and_nan_pass():
    big = 3e38
    found = fma([big, big, np.inf, np.nan], [2, -2, 1, 1], [0, 0, -1, 0])
    np.testing.assert_array_equal(found, np.array([np.inf, -np.inf, np.inf, np.nan], np.float32))


def test_arguments_broadcast():
    assert fma(np.ones((2, 1)), np.float32(2), np.arange(3)).tolist() == [[2, 3, 4]] * 2
