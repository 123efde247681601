"""Row-wise formats equal their definitions in `quant`, bit for bit."""

import numpy as np
import pytest

from lowgemm import ops, quant
from lowgemm.ops import OperandError

import fences
from isa import isas

F = np.float32
FORMATS = [(8, "float32"), (8, "float16"), (4, "float16"), (2, "float16")]
# Less than a vector, one of each level, one and a bit, several; many rows.
SHAPES = [(1, 4), (3, 8), (5, 28), (4, 32), (3, 36), (2, 64), (2, 68), (300, 100), (2, 1000)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def matrix(rng, shape: tuple[int, int], dtype: str = "float32") -> np.ndarray:
    """Rows of all magnitudes: some of one value, one of zeros, some with a range that float16 rounds to 0."""
    x = rng.normal(0, 3, shape) * 10.0 ** rng.integers(-6, 3, (shape[0], 1))
    x[::7] = x[::7, :1]
    x[1::13] = 0
    x[2::11, 1:] = x[2::11, :1] * (1 + 1e-6)
    return x.astype(dtype)


def equal(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether shape and bits agree; bfloat16 is known by its bits alone to `quant`."""
    return got.shape == want.shape and got.tobytes() == want.tobytes()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("bits", "params", "dtype"), [*((*f, "float32") for f in FORMATS), (4, "float16", "float16")]
)
def test_quantize_rows(rng, isa: str, bits, params, dtype: str) -> None:
    for shape in SHAPES:
        x = matrix(rng, shape, dtype)
        want = quant.quantize_rows(x, bits, params)
        for at, out in fences.fenced(x, want):
            assert ops.quantize_rows(at, bits, params, out=out, target=isa) is out
            assert equal(out, want), shape
    none = ops.quantize_rows(x[:0], bits, params, target=isa)
    assert none.shape == (0, want.shape[1])


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_quantize_rows_of_known_range(rng, isa: str) -> None:
    """Codes beyond the range are clamped."""
    x = rng.normal(0, 3, (9, 40)).astype(F)
    ends = np.sort(rng.normal(0, 3, (9, 2)).astype(F), axis=1)
    want = quant.quantize_rows(x, 4, "float16", ends)
    assert equal(ops.quantize_rows(x, 4, "float16", min_max=ends, target=isa), want)
    assert not equal(ops.quantize_rows(x, 4, "float16", target=isa), want)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("bits", "params", "dtype"),
    [*((*f, "float32") for f in FORMATS), (8, "float32", "float16"), (2, "float16", "bfloat16")],
)
def test_dequantize_rows(rng, isa: str, bits, params, dtype) -> None:
    for shape in SHAPES:
        rows = quant.quantize_rows(matrix(rng, shape), bits, params)
        want = quant.dequantize_rows(rows, bits, params, dtype)
        (at, _), (other, _) = fences.fenced(rows, want)
        for each in (at, other):
            assert equal(ops.dequantize_rows(each, bits, params, dtype, target=isa), want), shape
    assert ops.dequantize_rows(rows[:0], bits, params, dtype, target=isa).shape == (0, 1000)


@pytest.mark.parametrize("isa", isas())
def test_scale_and_bias_first(rng, isa: str) -> None:
    rows = quant.quantize_rows(matrix(rng, (5, 36)), 2, "float16")
    turned = np.roll(rows, 4, axis=1)
    want = quant.dequantize_rows(rows, 2, "float16")
    got = ops.dequantize_rows(turned, 2, "float16", scale_bias_last=False, target=isa)
    assert equal(got, want)


def test_fixed_vectors() -> None:
    """FBGEMM's: a row of ones, and a range of 255 from -64 on."""
    x = np.array([[1, 1, 1, 1], [-64, -2.75, 61.625, 191]], F)
    assert ops.quantize_rows(x, 8, "float16").tolist() == [
        [0, 0, 0, 0, 0x00, 0x3C, 0x00, 0x3C],
        [0, 61, 126, 255, 0x00, 0x3C, 0x00, 0xD4],
    ]
    assert ops.quantize_rows(x, 2, "float16").tolist() == [
        [0, 0x00, 0x3C, 0x00, 0x3C],
        [0b11010100, 0x50, 0x55, 0x00, 0xD4],
    ]


X = np.zeros((4, 6), F)
ROWS = np.zeros((4, 3), np.uint8)
REFUSED = {
    "dtype": (
        lambda: ops.quantize_rows(ROWS),
        "x: expected float32 or float16, got uint8 of shape (4, 3)",
    ),
    "bits": (lambda: ops.quantize_rows(X, 3), "bits: expected one of 8, 4, 2, got 3"),  # type: ignore[arg-type]
    "params": (
        lambda: ops.quantize_rows(X, 8, "int8"),  # type: ignore[arg-type]
        "params: expected one of float32, float16, got int8",
    ),
    "params of few bits": (
        lambda: ops.quantize_rows(X, 4),
        "params: expected float16 beside 4 bits, got float32",
    ),
    "columns": (
        lambda: ops.quantize_rows(X, 2, "float16"),
        "x: expected shape (rows, a multiple of 4), got shape (4, 6)",
    ),
    "no columns": (
        lambda: ops.quantize_rows(X[:, :0]),
        "x: expected shape (rows, a multiple of 1), got shape (4, 0)",
    ),
    "min_max": (
        lambda: ops.quantize_rows(X, min_max=X[:, :3].copy()),
        "min_max: expected shape (4, 2), got shape (4, 3)",
    ),
    "short rows": (
        lambda: ops.dequantize_rows(ROWS, 4, "float16"),
        "rows: expected shape (rows, 4 or more bytes), got shape (4, 3)",
    ),
    "dtype of the result": (
        lambda: ops.dequantize_rows(ROWS, 4, "float16", "float64"),  # type: ignore[arg-type]
        "dtype: expected one of float32, float16, bfloat16, got float64",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_named(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(OperandError) as caught:
        call()
    assert str(caught.value) == message
