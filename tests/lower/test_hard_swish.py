"""Hard-swishes in the output stage of convolutions: every kernel, and which bounds it may leave out."""

import numpy as np
import pytest

from lowgemm import topi
from lowgemm.lower import _convolutions
from lowgemm.passes import Quantization
from lowgemm.quant import hard_swish_codes, hard_swish_factors

from conv_check import Conv, check
from isa import isas

PAD = (1, 1, 1, 1)
CONVS = {
    "rows": Conv((5, 24), 40),
    "pixels": Conv((1, 16, 9, 11), 40),
    "tails": Conv((2, 13, 7, 11), 27, (3, 3), pads=PAD),
    "groups": Conv((1, 16, 6, 7), 32, (3, 3), strides=(2, 2), pads=PAD, group=2),
    "depthwise": Conv((2, 24, 7, 9), 24, (3, 3), pads=PAD, group=24),
    "depthwise-direct": Conv((1, 40, 12, 31), 40, (3, 3), strides=(2, 2), pads=PAD, group=40),
    "depthwise-of-two": Conv((1, 20, 6, 8), 40, (3, 3), pads=PAD, group=20),
}


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("level", isas())
def test_every_kernel_ends_with_it(level: str, conv: str) -> None:
    check(CONVS[conv], level, hard_swish=True)


@pytest.mark.parametrize(("in_dtype", "out_dtype"), [("int8", "int8"), ("uint8", "int8")])
@pytest.mark.parametrize("conv", ["tails", "depthwise-direct"])
@pytest.mark.parametrize("level", isas())
def test_signs(level: str, conv: str, in_dtype: str, out_dtype: str) -> None:
    check(CONVS[conv], level, in_dtype, out_dtype, hard_swish=True)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("level", isas("avx2", "avx512"))
def test_winograd(level: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_convolutions, "winograd_size", lambda *_: size)
    check(CONVS["tails"], level, hard_swish=True)


# (step, zero point, low, high) of the codes, (step, zero point) of the result: what has to be kept.
BOUNDS = {
    "wide": ((0.05, 100, 0, 255), (0.03, 12), ()),
    "ends-before-the-largest": ((0.05, 100, 0, 255), (0.05, 8), ("high",)),
    "begins-above-minus-3": ((0.05, 20, 0, 255), (0.03, 12), ("low",)),
    "relu6": ((0.05, 100, 100, 220), (0.03, 12), ("low", "high")),
    "relu": ((0.05, 100, 100, 255), (0.03, 12), ("low",)),
    "steps-too-small-to-look": ((1e-5, 100, 0, 255), (1e-9, 12), ("low",)),
    "all-below-0": ((0.05, 255, 0, 250), (1e-4, 255), ("high",)),
}


def attributes(codes, out, dtype: str = "uint8") -> dict:
    step, zero, low, high = codes
    factors = hard_swish_factors((step, zero), out, 1.0, 0.0)
    return {
        "out": Quantization(step, zero, "uint8"),
        "low": low,
        "high": high,
        "hard_swish": {"factors": factors, "out": Quantization(out[0], out[1], dtype)},
    }


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_kept_where_they_matter(name: str) -> None:
    codes, out, want = BOUNDS[name]
    attrs = attributes(codes, out)
    assert _convolutions._kept_bounds(attrs, 1e4) == want
    factors = attrs["hard_swish"]["factors"]
    low, high = (bound - codes[1] for bound in codes[2:])
    steps = np.arange(-10000, 10000)
    inside = np.clip(steps, low if "low" in want else None, high if "high" in want else None)
    expected = hard_swish_codes(np.clip(steps, low, high), factors, "uint8")
    assert np.array_equal(hard_swish_codes(inside, factors, "uint8"), expected)


def test_what_conversions_to_integers_do_not_hold_is_bounded() -> None:
    attrs = attributes(*BOUNDS["wide"][:2])
    factors = attrs["hard_swish"]["factors"]
    assert _convolutions._kept_bounds(attrs, topi.FAR / factors[3]) == ("high",)
