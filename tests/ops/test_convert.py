"""Conversions between float types, and transposition, of every value and around every size of a tile."""

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lowgemm import ops, quant
from lowgemm.ops import OperandError

import fences
from isa import isas

F = np.float32
SIZES = (0, 1, 5, 31, 32, 33, 64, 100, 16385)
# The bits of every narrow number.
BITS = np.arange(2**16, dtype=np.uint16)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(9)


def hard_floats() -> np.ndarray:
    """Every upper half of a float32 with the lower halves around a tie: all ties, infinities, NaNs, subnormals."""
    lower = np.array([0, 1, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return ((BITS.astype(np.uint32) << 16)[:, None] | lower).view(F)


def same(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether all bits agree, of NaNs, too."""
    return got.shape == want.shape and got.tobytes() == want.tobytes()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("rounding", ["rne", "half_up"])
def test_every_bfloat16(isa: str, rounding) -> None:
    x = hard_floats()
    got = ops.convert(x, "bfloat16", rounding=rounding, target=isa)
    assert got.dtype == ml_dtypes.bfloat16
    assert same(got, quant.to_bfloat16(x, rounding))
    back = quant.from_bfloat16(BITS)
    assert same(ops.convert(BITS, "float32", target=isa), back)
    assert same(ops.convert(BITS.view(ml_dtypes.bfloat16), "float32", target=isa), back)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("clip", [False, True])
def test_every_float16(isa: str, clip: bool) -> None:
    x = hard_floats()
    # The instruction makes a signaling NaN quiet, numpy does not; both keep it a NaN.
    numbers, nans = x[~np.isnan(x)], x[np.isnan(x)]
    assert same(
        ops.convert(numbers, "float16", clip=clip, target=isa), quant.to_float16(numbers, clip)
    )
    assert np.isnan(ops.convert(nans, "float16", clip=clip, target=isa)).all()
    halves = BITS.view(np.float16)
    numbers, nans = halves[~np.isnan(halves)], halves[np.isnan(halves)]
    assert same(ops.convert(numbers, "float32", target=isa), numbers.astype(F))
    assert np.isnan(ops.convert(nans, "float32", target=isa)).all()


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_sizes(rng, isa: str) -> None:
    for size in SIZES:
        x = rng.normal(0, 1e3, size).astype(F)
        for dtype in ("float16", ml_dtypes.bfloat16):
            narrow = x.astype(dtype)
            name: Any = np.dtype(dtype).name
            bits = narrow.view(np.uint16)
            for at, out in fences.fenced(x, bits):
                into = out.view(dtype)
                assert ops.convert(at, name, out=into, target=isa) is into
                assert same(out, bits)
            for at, out in fences.fenced(bits, x):
                ops.convert(at.view(dtype), "float32", out=out, target=isa)
                assert same(out, narrow.astype(F))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32"])
def test_transpose(rng, isa: str, dtype: str) -> None:
    """Both axes shorter than a tile, of one, of one and a bit, and of several blocks."""
    lengths = (0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130)
    blocks = ((300, 517), (1025, 5), (5, 1025))
    for shape in (*product(lengths, repeat=2), *blocks):
        x = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
        x = x.view(dtype)[..., 0]
        want = np.ascontiguousarray(x.T)
        for at, out in fences.fenced(x, np.zeros_like(want)):
            assert ops.transpose(at, out=out, target=isa) is out
            assert same(out, want), shape


def test_transpose_of_bfloat16(rng) -> None:
    x = rng.normal(size=(20, 9)).astype(ml_dtypes.bfloat16)
    got = ops.transpose(x)
    assert got.dtype == x.dtype and same(got, x.T.copy())


X = np.zeros((4, 6), F)
REFUSED = {
    "dtype of x": (
        lambda: ops.convert(X.astype(np.int8), "float32"),
        "x: expected float32 or float16 or uint16 or bfloat16, got int8 of shape (4, 6)",
    ),
    "to itself": (
        lambda: ops.convert(X, "float32"),
        "dtype: expected one of float16, bfloat16, got float32",
    ),
    "between narrow types": (
        lambda: ops.convert(X.astype(np.float16), "bfloat16"),
        "dtype: expected one of float32, got bfloat16",
    ),
    "rounding": (
        lambda: ops.convert(X, "float16", rounding="half_up"),
        'rounding: expected "rne" for float16, got "half_up"',
    ),
    "clip": (
        lambda: ops.convert(X, "bfloat16", clip=True),
        "clip: only for float16, not for bfloat16",
    ),
    "wide elements": (
        lambda: ops.transpose(X.astype(np.float64)),
        "x: expected 8, 16 or 32-bit elements of shape (rows, columns), got float64 of shape (4, 6)",
    ),
    "axes": (
        lambda: ops.transpose(X[0]),
        "x: expected 8, 16 or 32-bit elements of shape (rows, columns), got float32 of shape (6,)",
    ),
    "layout": (
        lambda: ops.transpose(X[:, ::2]),
        "x: expected a C-contiguous array, got strides (24, 8)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_named(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(OperandError) as caught:
        call()
    assert str(caught.value) == message
