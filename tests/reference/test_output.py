"""Output stages equal a chain of scalar float32 operations, written out; ties, wraps and clamps are exact."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import (
    add_codes,
    choose_fixed_point,
    fma,
    from_bfloat16,
    quantize_linear,
    sum_factors,
    to_bfloat16,
)
from lowgemm.reference import (
    Residual,
    column_offsets,
    gemm_i32,
    output_stage,
    requantize_transposed,
    row_sums,
)

F = np.float32
ROWS, DEPTH, COLUMNS, GROUPS = 5, 19, 6, 2


@dataclass
class Product:
    """A product of codes in groups, and what corrects it."""

    seed: int = 0
    lhs: np.ndarray = field(init=False)
    rhs: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.lhs = self.rng.integers(0, 256, (ROWS, GROUPS * DEPTH)).astype(np.uint8)
        self.rhs = self.rng.integers(-128, 128, (GROUPS * DEPTH, COLUMNS // GROUPS)).astype(np.int8)
        self.acc = gemm_i32(self.lhs, self.rhs, groups=GROUPS)

    def corrections(self, lhs_zero_point, rhs_zero_point) -> dict:
        return {
            "lhs_zero_point": lhs_zero_point,
            "rhs_zero_point": rhs_zero_point,
            "row_sums": row_sums(self.lhs, GROUPS),
            "column_offsets": column_offsets(self.rhs, rhs_zero_point, GROUPS),
            "groups": GROUPS,
        }


def wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


POINTS = {
    "tensor": np.array(-30),
    "group": np.array([-50, 17]),
    "column": np.array([-50, 0, 127, -128, 3, 4]),
}


@pytest.mark.parametrize("granularity", POINTS)
@pytest.mark.parametrize("lhs_point", [0, 43, 255, np.array([0, 1, 43, 255, 128])], ids=str)
def test_zero_points_are_taken_off(granularity: str, lhs_point):
    product = Product()
    points = POINTS[granularity]
    corrections = product.corrections(lhs_point, points)
    exact = gemm_i32(product.lhs, product.rhs, lhs_point, points, groups=GROUPS)
    assert (output_stage(product.acc, dtype="int32", **corrections) == exact).all()
    bias = product.rng.integers(-(2**31), 2**31, COLUMNS).astype(np.int32)
    biased = output_stage(product.acc, dtype="int32", bias=bias, **corrections)
    for i, j in itertools.product(range(ROWS), range(COLUMNS)):
        assert biased[i, j] == wrap(int(exact[i, j]) + int(bias[j]))
    relu = output_stage(product.acc, dtype="int32", activation="relu", **corrections)
    assert (relu == np.maximum(exact, 0)).all()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("granularity", [1, GROUPS, COLUMNS])
@pytest.mark.parametrize("bias_type", [None, "int32", "float32"])
def test_fbgemm_requantization(relu: bool, granularity: int, bias_type: str | None):
    """ReQuantizeOutput's scalar code, element by element."""
    product = Product(granularity)
    rng, points = product.rng, product.rng.integers(-50, -10, granularity)
    multiplier = (0.001234 * rng.uniform(0.5, 1.5, granularity)).astype(F)
    scale = rng.uniform(0.001, 0.01, granularity).astype(F)
    bias = None
    if bias_type:
        bias = rng.integers(-9000, 9000, COLUMNS).astype(np.int32)
        bias = bias if bias_type == "int32" else (bias * F(0.00321)).astype(F)
    corrections = product.corrections(43, points)
    found = output_stage(
        product.acc, multiplier=multiplier, zero_point=5, bias=bias,
        bias_scale=scale if bias_type == "float32" else None,
        activation="relu" if relu else None, **corrections,
    )  # fmt: skip
    assert found.dtype == np.uint8
    sums, offsets = corrections["row_sums"], corrections["column_offsets"]
    for i, j in itertools.product(range(ROWS), range(COLUMNS)):
        index, group = j * granularity // COLUMNS, j * GROUPS // COLUMNS
        raw = (
            int(product.acc[i, j]) - 43 * int(offsets[j]) - int(sums[i, group]) * int(points[index])
        )
        raw_f = F(raw)
        if bias is not None and bias_type == "int32":
            raw_f = F(raw + int(bias[j]))
        elif bias is not None:
            raw_f = raw_f + bias[j] / scale[index]
        rounded = int(np.rint(F(raw_f * multiplier[index]))) + 5
        assert found[i, j] == max(5 if relu else 0, min(255, rounded))


def test_fixed_point_rounds_ties_up_and_clamps_in_64_bits():
    acc = np.array([[1, 3, -1, -3, 2**31 - 1, -(2**31)]], np.int32)
    half = choose_fixed_point(0.5)
    found = output_stage(acc, fixed=half, zero_point=1, dtype="int8")
    assert found.tolist() == [[2, 3, 1, 0, 127, -128]]
    assert output_stage(acc, multiplier=0.5, zero_point=1, dtype="int8").tolist() == [
        [1, 3, 1, -1, 127, -128]
    ]
    each = [half] * 5 + [choose_fixed_point(1e-8)]
    found = output_stage(acc, fixed=each, zero_point=100, activation="relu6", out_scale=0.5)
    assert found.tolist() == [[101, 102, 100, 100, 112, 100]]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_codes_round_ties_to_even_before_the_zero_point(dtype: str):
    low = int(np.iinfo(dtype).min)
    acc = np.array([[1, 3, 5, -1, -3, 2**31 - 1, -(2**31)]], np.int32)
    for zero_point in (low, low + 1, low + 255):
        codes = output_stage(acc, multiplier=0.5, zero_point=zero_point, dtype=dtype)
        exact = np.array([0, 2, 2, 0, -2, 2**30, -(2**30)]) + zero_point
        assert codes.dtype == dtype
        assert codes.tolist() == [np.clip(exact, low, low + 255).tolist()]


def test_a_product_beyond_32_bits_is_clamped():
    acc = np.array([[2**31 - 1, -(2**31)]], np.int32)
    assert output_stage(acc, multiplier=1e30).tolist() == [[255, 0]]
    assert output_stage(acc, multiplier=3.4e38).tolist() == [[255, 0]]


def test_activations_of_codes():
    acc = np.array([[-40, -5, 0, 7, 300]], np.int32)
    stage = {"multiplier": 0.5, "zero_point": 10, "dtype": "int8"}
    assert output_stage(acc, activation="relu", **stage).tolist() == [[10, 10, 10, 14, 127]]
    # 6.0 is rint(6 / 0.25) = 24 codes above the zero point.
    relu6 = output_stage(acc, activation="relu6", out_scale=0.25, **stage)
    assert relu6.tolist() == [[10, 10, 10, 14, 34]]
    # -40 * 0.5 * 0.125 = -2.5 and -0.3125: scaled before they are rounded, ties to even.
    leaky = output_stage(acc, activation="leaky_relu", alpha=0.125, **stage)
    assert leaky.tolist() == [[8, 10, 10, 14, 127]]


def test_activations_of_floats():
    acc = np.array([[-4, 0, 4, 100]], np.int32)
    stage = {"multiplier": 0.5, "dtype": "float32"}
    assert output_stage(acc, **stage).tolist() == [[-2, 0, 2, 50]]
    assert output_stage(acc, activation="relu", **stage).tolist() == [[0, 0, 2, 50]]
    assert output_stage(acc, activation="relu6", **stage).tolist() == [[0, 0, 2, 6]]
    leaky = output_stage(acc, activation="leaky_relu", alpha=0.01, **stage)
    assert leaky.tolist() == [[F(-2) * F(0.01), 0, 2, 50]]


@pytest.mark.parametrize("with_row", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_floats_fuse_the_last_product_with_the_first_sum(
    with_row: bool, with_bias: bool, with_residual: bool, dtype: str
):
    rng = np.random.default_rng(4)
    acc = rng.integers(-(2**31), 2**31, (50, COLUMNS)).astype(np.int32)
    multiplier, bias = (
        rng.uniform(1e-9, 1e-8, COLUMNS).astype(F),
        rng.normal(size=COLUMNS).astype(F),
    )
    rows, other = rng.uniform(0.5, 2, 50).astype(F), rng.normal(size=acc.shape).astype(F)
    found = output_stage(
        acc, dtype=dtype, multiplier=multiplier,
        row_scale=rows if with_row else None,
        bias=bias if with_bias else None,
        residual=Residual(other) if with_residual else None,
    )  # fmt: skip
    for i, j in itertools.product(range(50), range(COLUMNS)):
        y, factor = F(acc[i, j]), multiplier[j]
        if with_row:
            y, factor = y * factor, rows[i]
        if with_bias:
            y = fma(y, factor, bias[j])[()]
            y = y + other[i, j] if with_residual else y
        elif with_residual:
            y = fma(y, factor, other[i, j])[()]
        else:
            y = y * factor
        if dtype == "bfloat16":
            assert from_bfloat16(found)[i, j] == from_bfloat16(to_bfloat16(y))
        else:
            assert found.dtype == np.float32
            assert found[i, j] == y


def test_a_row_scale_is_the_second_product_of_a_code():
    rng = np.random.default_rng(5)
    acc = rng.integers(-20000, 20000, (300, 4)).astype(np.int32)
    multiplier, rows = rng.uniform(0.001, 0.01, 4).astype(F), rng.uniform(0.1, 2, 300).astype(F)
    y = acc.astype(F) * multiplier * rows[:, None]
    found = output_stage(acc, multiplier=multiplier, row_scale=rows, zero_point=100)
    assert (found == np.clip(np.rint(y) + 100, 0, 255)).all()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_residual_is_added_to_the_code_with_its_own_clamp(first: bool, dtype: str):
    rng = np.random.default_rng(6)
    limits = np.iinfo(dtype)
    acc = rng.integers(-30000, 30000, (20, 30)).astype(np.int32)
    other = rng.integers(limits.min, limits.max, acc.shape, endpoint=True).astype(dtype)
    code = output_stage(acc, multiplier=0.01, zero_point=3, dtype=dtype, activation="relu")
    own, its = (0.03, 3), (0.05, 7)
    factors = sum_factors(*((its, own) if first else (own, its)), (0.04, 11))
    pair = (other, code) if first else (code, other)
    stage = {"multiplier": 0.01, "zero_point": 3, "dtype": dtype, "activation": "relu"}
    found = output_stage(acc, residual=Residual(other, factors, 11, 90, first), **stage)
    assert (found == add_codes(*pair, factors, 11, 90, dtype)).all()
    wide = output_stage(acc, residual=Residual(other, factors, first=first), **stage)
    assert (wide == add_codes(*pair, factors, limits.min, limits.max, dtype)).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_table_is_read_from_the_least_code_on(dtype: str):
    acc = np.arange(-128, 128, dtype=np.int32).reshape(1, -1) + (128 if dtype == "uint8" else 0)
    table = np.random.default_rng(7).permutation(256).astype(np.uint8).view(dtype)
    assert (output_stage(acc, table=table, dtype=dtype) == table).all()
    q = quantize_linear(acc.astype(F), 1.0, 0, dtype)
    assert (output_stage(acc, dtype=dtype) == q).all()


def test_images_have_rows_of_pixels():
    rng = np.random.default_rng(8)
    acc = rng.integers(-9000, 9000, (2, 3, 4, COLUMNS)).astype(np.int32)
    sums = rng.integers(0, 9000, (2, 3, 4, GROUPS)).astype(np.int32)
    args = {"rhs_zero_point": np.array([3, -4]), "groups": GROUPS, "multiplier": 0.01}
    rows = output_stage(acc.reshape(24, -1), row_sums=sums.reshape(24, -1), **args)
    assert (output_stage(acc, row_sums=sums, **args).reshape(24, -1) == rows).all()


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_transposed_requantization(each: bool, relu: bool, biased: bool):
    """trRequantizeRef, element by element."""
    rng = np.random.default_rng(9)
    weight = rng.integers(-128, 128, (6, 40)).astype(np.int8)
    x = rng.integers(0, 256, (40, 7)).astype(np.uint8)
    points = rng.integers(-9, 9, 6) if each else np.array(4)
    scale = (rng.uniform(-8, 8, 6) if each else np.array(0.3)).astype(F)
    bias = rng.uniform(-5e4, 5e4, 6).astype(F) if biased else None
    acc = gemm_i32(weight, x)
    offsets, sums = column_offsets(weight.T, points), row_sums(x.T)[:, 0]
    found = requantize_transposed(
        acc, scale, 128.7, 2, x_zero_point=3, weight_zero_point=points,
        weight_offsets=offsets, x_sums=sums, bias=bias, relu=relu,
    )  # fmt: skip
    assert found.dtype == np.uint8
    for i, j in np.ndindex(acc.shape):
        point, factor = points.flat[i if each else 0], scale.flat[i if each else 0]
        y = F(int(acc[i, j]) - 3 * int(offsets[i]) - int(sums[j]) * int(point))
        y = y if bias is None else y + bias[i] / factor
        rounded = int(np.rint(F(y * factor) / F(128.7))) + 2
        assert found[i, j] == max(2 if relu else 0, min(255, rounded))


def test_transposed_requantization_divides_after_it_multiplies():
    acc = np.arange(200_000, dtype=np.int32).reshape(1, -1)
    scale, out = F(0.3), F(700)
    found = requantize_transposed(acc, scale, float(out))
    assert (found == np.rint(acc.astype(F) * scale / out)).all()
    assert (found != np.rint(acc.astype(F) * (scale / out))).any()


ACC = np.zeros((2, 6), np.int32)
CODE = np.zeros((2, 6), np.uint8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int16"}, "dtype is 'int16'; expected uint8, int8, int32, float32 or bfloat16"),
        ({"activation": "gelu"}, "activation is 'gelu'; expected relu, relu6, leaky_relu or None"),
        ({"activation": "leaky_relu"}, "alpha belongs to leaky_relu"),
        ({"alpha": 0.1}, "alpha belongs to leaky_relu"),
        ({"activation": "relu6"}, "out_scale belongs to relu6 of an 8-bit output"),
        ({"out_scale": 0.1}, "out_scale belongs to relu6 of an 8-bit output"),
        ({"dtype": "int32", "activation": "relu6"}, "an int32 output has no activation but relu"),
        ({"dtype": "float32", "table": CODE[0]}, "table is 256 codes of the type of an 8-bit"),
        ({"table": np.zeros(256, np.int8)}, "table is 256 codes of the type of an 8-bit output"),
        ({"residual": Residual(CODE)}, "a residual has factors if the output is 8-bit"),
        ({"multiplier": np.ones(4)}, "multiplier has 4 elements, expected 1, 1 or 6"),
        ({"lhs_zero_point": 1}, "lhs_zero_point is not 0, so column_offsets is needed"),
        ({"rhs_zero_point": 1}, "rhs_zero_point is not 0, so row_sums is needed"),
        ({"bias": np.zeros(6)}, "a float bias of 8-bit outputs needs bias_scale"),
        ({"fixed": choose_fixed_point(0.5), "dtype": "int32"}, "fixed belongs to 8-bit outputs"),
        ({"fixed": choose_fixed_point(0.5), "row_scale": ACC[:, 0]}, "has no float bias, row_scale"),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        output_stage(ACC, **options)
