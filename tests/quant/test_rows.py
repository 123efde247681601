"""Row-wise formats: FBGEMM's fixed vectors, and its scalar code element by element."""

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import dequantize_rows, fma, quantize_rows, to_bfloat16, unpack_rows

F = np.float32
# All elements the same; a range of 255 from -64 on, with an element that float16 rounds.
FIXED = np.array([[1, 1, 1, 1], [-64, -2.75, 61.625, 191]], F)
FIXED_ROWS = {
    (8, "float32"): [
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3F],
        [0, 61, 126, 255, 0, 0, 0x80, 0x3F, 0, 0, 0x80, 0xC2],
    ],
    (8, "float16"): [
        [0, 0, 0, 0, 0x00, 0x3C, 0x00, 0x3C],
        [0, 61, 126, 255, 0x00, 0x3C, 0x00, 0xD4],
    ],
    (4, "float16"): [[0, 0, 0x00, 0x3C, 0x00, 0x3C], [0x40, 0xF7, 0x40, 0x4C, 0x00, 0xD4]],
    (2, "float16"): [[0, 0x00, 0x3C, 0x00, 0x3C], [0b11010100, 0x50, 0x55, 0x00, 0xD4]],
}


@pytest.mark.parametrize(("bits", "params"), FIXED_ROWS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_fixed_vectors(bits: int, params: str, dtype: str):
    x = FIXED.astype(dtype)
    expected = FIXED_ROWS[bits, params]
    assert quantize_rows(x, bits, params).tolist() == expected
    ends = np.array([[1, 1], [-64, 191]], dtype)
    assert quantize_rows(x, bits, params, ends).tolist() == expected
    assert quantize_rows(x, bits, params, ends + np.array([0, 9], dtype)).tolist() != expected


def by_hand_sbfloat(row: np.ndarray) -> tuple[list[int], np.floating, np.floating]:
    low, high = row.min(), row.max()
    inverse = F(255) / ((high - low) + F(1e-8))
    return [int(np.rint((x - low) * inverse)) for x in row], (high - low) / F(255), low


def by_hand_sbhalf(row: np.ndarray, bits: int) -> tuple[list[int], np.floating, np.floating]:
    low, top = F(np.float16(row.min())), 2**bits - 1
    range_ = row.max() - low
    scale = F(np.float16(F(1) if range_ == 0 else range_ / F(top)))
    scale = F(1) if scale == 0 else scale
    inverse = F(1) / scale
    return [max(0, min(top, int(np.rint((x - low) * inverse)))) for x in row], scale, low


ROWS = {
    "uniform": lambda rng: rng.uniform(-10, 10, (6, 84)),
    "far from zero": lambda rng: rng.uniform(1000, 1001, (6, 84)),
    "nearly constant": lambda rng: 0.1 + rng.uniform(0, 1e-7, (6, 84)),
    "constant": lambda rng: np.repeat(rng.uniform(-5000, 5000, (6, 1)), 8, axis=1),
}


@pytest.mark.parametrize("data", ROWS)
@pytest.mark.parametrize(("bits", "params"), FIXED_ROWS)
def test_every_element_is_that_of_the_scalar_code(data: str, bits: int, params: str):
    x = ROWS[data](np.random.default_rng(bits)).astype(F)
    rows = quantize_rows(x, bits, params)
    assert rows.shape == (len(x), x.shape[1] * bits // 8 + (8 if params == "float32" else 4))
    codes, scale, bias = unpack_rows(rows, bits, params)
    for i, row in enumerate(x):
        hand = by_hand_sbfloat(row) if params == "float32" else by_hand_sbhalf(row, bits)
        assert codes[i].tolist() == hand[0]
        assert (scale[i], bias[i]) == hand[1:]
    back = dequantize_rows(rows, bits, params)
    assert (back == fma(codes, scale[:, None], bias[:, None])).all()
    assert (dequantize_rows(rows, bits, params, "float16") == back.astype(np.float16)).all()
    assert (dequantize_rows(rows, bits, params, "bfloat16") == to_bfloat16(back)).all()


@pytest.mark.parametrize(("bits", "params"), FIXED_ROWS)
def test_scale_and_bias_may_come_first(bits: int, params: str):
    x = np.random.default_rng(0).uniform(-1, 1, (3, 16)).astype(F)
    rows = quantize_rows(x, bits, params)
    size = 8 if params == "float32" else 4
    turned = np.roll(rows, size, axis=1)
    back = dequantize_rows(turned, bits, params, scale_bias_last=False)
    assert (back == dequantize_rows(rows, bits, params)).all()


def test_the_first_code_lies_in_the_lowest_bits():
    x = np.array([[0, 1, 2, 3]], F)
    assert quantize_rows(x, 2, "float16")[0, 0] == 0b11100100
    assert quantize_rows(x * 5, 4, "float16")[0, :2].tolist() == [0x50, 0xFA]


@pytest.mark.parametrize(
    ("bits", "params", "message"),
    [
        (3, "float16", "bits is 3; expected 2, 4 or 8"),
        (4, "float32", "bits is 4; expected 8 beside float32 parameters"),
        (8, "half", "params is 'half'; expected 'float32' or 'float16'"),
        (2, "float16", r"x is \(2, 6\); expected \(rows, a multiple of 4\)"),
    ],
)
def test_what_has_no_format_is_refused(bits: int, params: str, message: str):
    with pytest.raises(InputError, match=message):
        quantize_rows(np.zeros((2, 6), F), bits, params)


def test_what_is_no_row_is_refused():
    with pytest.raises(InputError, match=r"rows is uint8\(2, 3\); expected uint8 \(rows, 4 or mor"):
        unpack_rows(np.zeros((2, 3), np.uint8), 4, "float16")
    with pytest.raises(InputError, match="dtype is 'float64'; expected float32, float16 or bfl"):
        dequantize_rows(np.zeros((2, 9), np.uint8), dtype="float64")
