"""Codes and real numbers equal their definitions in `quant`, bit for bit, for every size, axis and value."""

import pickle
import warnings
from itertools import product

import numpy as np
import pytest

from lowgemm import ops, quant
from lowgemm.ops import OperandError
from lowgemm.reference import output_stage

import fences
from isa import isas
from kernels import full_range

F = np.float32
# None, one, and around one vector of each level; around a task; several tasks.
SIZES = (0, 1, 2, 31, 32, 33, 63, 64, 65, 100, 16383, 16384, 16385, 50001)
# The ends of both types and of their zero points.
POINTS = {"uint8": (0, 255, 131), "int8": (-128, 127, 3)}
# Halves, which go to even; numbers that overflow once multiplied, infinities, a NaN; subnormal numbers.
HARD = np.array(
    [*np.arange(-260, 260) / 2, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 0.0, -0.0],
    F,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def same(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether dtype, shape and every bit agree."""
    return got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()


@pytest.mark.parametrize("isa", isas())
def test_sizes(rng, isa: str) -> None:
    for size in SIZES:
        x = rng.normal(0, 3, size).astype(F)
        codes = quant.quantize_reciprocal(x, 0.02, 131)
        real = quant.dequantize_linear(codes, 0.02, 131)
        back = quant.quantize_dequantize(x, 0.02, 131)
        for at, out in fences.fenced(x, np.empty_like(codes)):
            assert ops.quantize(at, 0.02, 131, out=out, target=isa) is out
            assert same(out, codes)
        for at, out in fences.fenced(codes, np.empty_like(x)):
            assert same(ops.dequantize(at, 0.02, 131, out=out, target=isa), real)
        for at, out in fences.fenced(x, np.empty_like(x)):
            assert same(ops.quantize_dequantize(at, 0.02, 131, out=out, target=isa), back)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_hard_values(isa: str, dtype) -> None:
    codes = np.arange(256).astype(np.uint8).view(dtype)
    for point, scale in product(POINTS[dtype], (1.0, 0.5, 0.0214854861, 1e30, 1e-30, 3.1e-39)):
        want = quant.quantize_reciprocal(HARD, scale, point, dtype)
        assert same(ops.quantize(HARD, scale, point, dtype, target=isa), want)
        with np.errstate(over="ignore"):
            real = quant.dequantize_linear(codes, scale, point)
            back = quant.quantize_dequantize(HARD, scale, point, dtype)
        assert same(ops.dequantize(codes, scale, point, target=isa), real)
        assert same(ops.quantize_dequantize(HARD, scale, point, dtype, target=isa), back)


# (shape, axis, number of scales): rows that fill vectors and rows that do not; the last axis, wide and narrow, and of
# one index; groups; an axis of one index; more elements than a task takes.
ALONG = [
    ((4, 6, 50), 0, 4),
    ((4, 6, 50), 1, 6),
    ((4, 6, 50), 1, 3),
    ((4, 6, 50), -1, 50),
    ((4, 6, 50), 2, 10),
    ((2, 5, 3), 1, 5),
    ((2, 5, 7, 1), 1, 5),
    ((7, 3), 1, 3),
    ((70, 33), -1, 33),
    ((5, 1), 0, 5),
    ((9,), 0, 3),
    ((1,), 0, 1),
    ((3, 17000), 0, 3),
    ((300, 77), 1, 77),
    ((0, 4), 1, 4),
]


@pytest.mark.parametrize("isa", isas())
def test_axes(rng, isa: str) -> None:
    for shape, axis, count in ALONG:
        x = rng.normal(0, 3, shape).astype(F)
        scale = rng.uniform(0.01, 0.05, count).astype(F)
        point = rng.integers(-128, 128, count)
        codes = quant.quantize_reciprocal(x, scale, point, "int8", axis)
        real = quant.dequantize_linear(codes, scale, point, axis)
        assert same(quant.quantize_dequantize(x, scale, point, "int8", axis), real)
        for at, out in fences.fenced(x, codes):
            ops.quantize(at, scale, point, "int8", axis, out=out, target=isa)
            assert same(out, codes), (shape, axis, count)
        for at, out in fences.fenced(codes, x):
            ops.dequantize(at, scale, point, axis, out=out, target=isa)
            assert same(out, real), (shape, axis, count)
        assert same(ops.quantize_dequantize(x, scale, point, "int8", axis, target=isa), real)


def test_one_zero_point_for_all_scales(rng) -> None:
    x = rng.normal(0, 3, (8, 40)).astype(F)
    scale = rng.uniform(0.01, 0.05, 8)
    want = quant.quantize_reciprocal(x, scale, 7, "uint8", 0)
    assert same(ops.quantize(x, scale, 7, axis=0), want)
    assert same(
        ops.dequantize(want, 0.25, np.arange(8), axis=0),
        (want.astype(F) - np.arange(8, dtype=F)[:, None]) * F(0.25),
    )


def sums(rng, shape: tuple[int, ...]) -> np.ndarray:
    """Sums of every magnitude, some of them odd, which a multiplier of 1/2 makes ties."""
    bits = rng.integers(0, 32, shape)
    acc = (rng.integers(-(2**31), 2**31, shape) >> bits).astype(np.int32)
    acc.flat[: acc.size // 8] = np.resize([2**31 - 1, -(2**31), 255, -255, 1, 3, 5], acc.size // 8)
    return acc


# (dtype, zero point, axis, bias, relu)
REQUANTIZE = [
    ("uint8", 5, None, None, False),
    ("uint8", 5, None, "int32", True),
    ("uint8", 255, -1, "float32", False),
    ("uint8", 0, -1, "int32", True),
    ("int8", -128, -2, None, False),
    ("int8", 127, -2, "int32", True),
]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", REQUANTIZE, ids=str)
def test_requantize(rng, isa: str, case) -> None:
    """FBGEMM's shapes of this test, rows 1 to 4 and columns 1 to 32, and some with more than a vector or a task."""
    dtype, point, axis, bias, relu = case
    more = [(3, 64), (2, 100), (40, 513), (33, 1), (300, 1), (300, 2)]
    for shape in [*product(range(1, 5), range(1, 33)), *more]:
        acc = sums(rng, shape)
        count = 1 if axis is None else shape[axis]
        multiplier = rng.choice([0.5, 0.25, 0.001234, 0.3], count).astype(F)
        added, unit = None, None
        if bias:
            added = rng.integers(-1000, 1000, shape[-1]).astype(bias)
            unit = 0.125 if bias == "float32" else None
        rows = {"multiplier": multiplier} if axis != -2 else {"row_scale": multiplier}
        want = output_stage(
            acc,
            dtype=dtype,
            zero_point=point,
            **rows,
            bias=added,
            bias_scale=unit,
            activation="relu" if relu else None,
        )
        options = {"bias": added, "bias_scale": unit, "relu": relu, "target": isa}
        for at, out in fences.fenced(acc, want):
            ops.requantize(at, multiplier, point, dtype, axis, out=out, **options)
            assert same(out, want), shape


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("axis", [None, -1, -2])
def test_requantize_fixed_point(rng, isa: str, axis: int | None) -> None:
    for shape in [(1, 1), (3, 7), (4, 32), (5, 33), (300, 77)]:
        acc = sums(rng, shape)
        bias = rng.integers(-1000, 1000, shape[-1]).astype(np.int32)
        total = (acc.astype(np.int64) + bias).astype(np.int32)
        count = 1 if axis is None else shape[axis]
        multiplier = np.array([0.5, 2.0**-31, 0.000123, 0.999, 3.0], F)[rng.integers(0, 5, count)]
        fixed = [quant.choose_fixed_point(float(m)) for m in multiplier]
        turned = total.T if axis == -2 else total
        want = quant.requantize_fixed_point(turned, fixed, 5, "uint8", lower=5)
        want = want.T if axis == -2 else want
        got = ops.requantize(
            acc, multiplier, 5, axis=axis, bias=bias, relu=True, rounding="fixed_point", target=isa
        )
        assert same(got, np.ascontiguousarray(want)), shape


def test_policies_differ_at_ties() -> None:
    acc = np.array([[1, 3, 5, -1, -3]], np.int32)
    assert ops.requantize(acc, 0.5, 10).tolist() == [[10, 12, 12, 10, 8]]
    fixed = ops.requantize(acc, 0.5, 10, rounding="fixed_point")
    assert fixed.tolist() == [[11, 12, 13, 10, 9]]


def test_a_float_bias_equals_an_integer_one(rng) -> None:
    """FBGEMM's RequantizeOnly: integers divided by a scale that is a power of two."""
    acc = rng.integers(-1000, 1000, (4, 32)).astype(np.int32)
    bias = rng.integers(-100, 100, 32).astype(np.int32)
    multiplier = rng.uniform(0.0006, 0.002, 32)
    want = ops.requantize(acc, multiplier, 5, axis=1, bias=bias)
    got = ops.requantize(acc, multiplier, 5, axis=1, bias=bias.astype(F) * F(0.5), bias_scale=0.5)
    assert same(got, want)


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_min_max(rng, isa: str) -> None:
    for size in SIZES[1:]:
        x = rng.normal(0, 3, size).astype(F)
        # The ends where a scan that stops short, or begins late, would miss them.
        for low, high in ((0, -1), (-1, 0), (size // 2, size // 2)):
            y = x.copy()
            y[low] -= 1000
            y[high] += 2000
            for (at,) in fences.fenced(y):
                assert ops.min_max(at, target=isa) == quant.min_max(y)
        y = x.copy()
        y[rng.integers(size)] = np.nan
        with pytest.raises(OperandError, match=r"^x: expected numbers, got a NaN$"):
            ops.min_max(y, target=isa)
    assert ops.min_max(np.zeros((2, 0), F), target=isa) == (0.0, 0.0)
    assert ops.min_max(np.array([-np.inf, np.inf], F), target=isa) == (-np.inf, np.inf)


def test_choose_qparams() -> None:
    """FBGEMM's fixed vector, and the rule of `quant` for what `min_max` finds."""
    x = np.array([-1.6165, 0.1, 0.5685], F)
    found = ops.choose_qparams(x, "int8", symmetric=True)
    assert found.zero_point == 0 and F(found.scale) == F(0.012628906)
    assert ops.choose_qparams(x) == quant.choose_qparams(float(x[0]), float(x[2]))
    low, high = float(x[0]), float(x[2])
    want = quant.choose_qparams(low, high, -128, 127, power_of_two=True)
    assert ops.choose_qparams(x, "int8", power_of_two=True) == want
    with pytest.raises(
        OperandError, match=r"^x: expected finite elements, got the range 0.0 to inf$"
    ):
        ops.choose_qparams(np.array([0, np.inf], F))


def test_threads_give_the_same(rng) -> None:
    """Tasks of several threads overlap in no element that they disagree on."""
    x = rng.normal(0, 3, 300_001).astype(F)
    scale = rng.uniform(0.01, 0.05, 3)
    y = x[:300_000].reshape(-1, 3)
    before = ops.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            ops.set_num_threads(threads)
            found.append(
                (
                    ops.quantize(x, 0.02, 131).tobytes(),
                    ops.quantize(y, scale, 7, axis=1).tobytes(),
                    ops.min_max(x),
                )
            )
    finally:
        ops.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    assert found[0][0] == quant.quantize_reciprocal(x, 0.02, 131).tobytes()


class Lender:
    """An array that is known by DLPack alone, as one of another library is."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def __dlpack__(self, **options):
        return self._value.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._value.__dlpack_device__()


def test_arrays_that_were_pickled(rng) -> None:
    """Their dtype is equal to numpy's own, and another object."""
    for kind in ("uint8", "int8"):
        q = pickle.loads(pickle.dumps(full_range(rng, (3, 5), kind)))
        assert q.dtype is not np.dtype(kind)
        assert same(ops.dequantize(q, 0.02, 3), quant.dequantize_linear(q, 0.02, 3))


def test_arrays_of_other_libraries(rng) -> None:
    x = rng.normal(0, 3, (3, 5)).astype(F)
    assert same(ops.quantize(Lender(x), 0.02, 131), quant.quantize_reciprocal(x, 0.02, 131))


X = np.zeros((4, 6), F)
ACC = np.zeros((4, 6), np.int32)
CODES = np.zeros((4, 6), np.uint8)
READ_ONLY = np.zeros((4, 6), np.uint8)
READ_ONLY.flags.writeable = False
REFUSED = {
    "dtype of x": (
        lambda: ops.quantize(CODES, 1.0),
        "x: expected float32, got uint8 of shape (4, 6)",
    ),
    "no array": (lambda: ops.quantize([1.0], 1.0), "x: expected an array, got list"),
    "layout": (
        lambda: ops.quantize(X.T, 1.0),
        "x: expected a C-contiguous array, got strides (4, 24)",
    ),
    "zero scale": (
        lambda: ops.quantize(X, 0.0),
        "scale: expected finite scales above zero, got 0.0",
    ),
    "NaN scale": (
        lambda: ops.quantize(X, float("nan")),
        "scale: expected finite scales above zero, got nan",
    ),
    "negative scale": (
        lambda: ops.dequantize(CODES, [1.0, -1.0], axis=0),
        "scale: expected finite scales above zero, got -1.0",
    ),
    "tiny scale": (
        lambda: ops.quantize(X, 1e-39),
        "scale: expected float32 numbers with a finite reciprocal, got",
    ),
    "zero point": (
        lambda: ops.quantize(X, 1.0, 300),
        "zero_point: expected integers from 0 to 255, got 300",
    ),
    "no scale": (
        lambda: ops.quantize(X, "fine"),
        "scale: expected real numbers, got 'fine'",
    ),
    "type of axis": (
        lambda: ops.quantize(X, [1.0, 2.0], axis="rows"),  # type: ignore[arg-type]
        "axis: expected an integer from -2 to 1, got 'rows'",
    ),
    "type of dtype": (
        lambda: ops.quantize(X, 1.0, 0, np.dtype("uint8")),  # type: ignore[arg-type]
        "dtype: expected one of uint8, int8, got dtype('uint8')",
    ),
    "real zero point": (
        lambda: ops.quantize(X, 1.0, 0.5),
        "zero_point: expected integers from 0 to 255, got 0.5",
    ),
    "dtype": (
        lambda: ops.quantize(X, 1.0, 0, "int16"),  # type: ignore[arg-type]
        "dtype: expected one of uint8, int8, got int16",
    ),
    "no axis": (
        lambda: ops.quantize(X, [1.0, 2.0]),
        "axis: expected one of 2 axes for 2 values, got None",
    ),
    "axis": (
        lambda: ops.quantize(X, [1.0, 2.0], axis=2),
        "axis: expected an integer from -2 to 1, got 2",
    ),
    "groups": (
        lambda: ops.quantize(X, [1.0] * 4, axis=1),
        "axis: expected a size that 4 values divide, got 6",
    ),
    "zero points": (
        lambda: ops.quantize(X, [1.0] * 6, [1, 2, 3], axis=1),
        "scale, zero_point: expected 1 or 6 values, got 3",
    ),
    "dtype of out": (
        lambda: ops.quantize(X, 1.0, out=ACC),
        "out: expected uint8 of shape (4, 6), got int32 of shape (4, 6)",
    ),
    "shape of out": (
        lambda: ops.quantize(X, 1.0, out=CODES[:2]),
        "out: expected uint8 of shape (4, 6), got uint8 of shape (2, 6)",
    ),
    "read-only out": (
        lambda: ops.quantize(X, 1.0, out=READ_ONLY),
        "out: expected an array that can be written to",
    ),
    "shared out": (
        lambda: ops.quantize_dequantize(X, 1.0, out=X),
        "out: expected memory apart from the inputs",
    ),
    "rounding": (
        lambda: ops.requantize(ACC, 1.0, rounding="up"),  # type: ignore[arg-type]
        "rounding: expected one of rne, fixed_point, got up",
    ),
    "output's zero point": (
        lambda: ops.requantize(ACC, 1.0, 128, "int8"),
        "zero_point: expected an integer from -128 to 127, got 128",
    ),
    "bias": (
        lambda: ops.requantize(ACC, 1.0, bias=ACC[0, :5]),
        "bias: expected shape (6,), got shape (5,)",
    ),
    "float bias": (
        lambda: ops.requantize(ACC, 1.0, bias=X[0]),
        "bias_scale: expected beside a float32 bias, and only there",
    ),
    "bias scale": (
        lambda: ops.requantize(ACC, 1.0, bias=X[0], bias_scale=[1.0, 2.0]),
        "bias_scale: expected 1 or 6 values, got 2",
    ),
    "float bias of fixed point": (
        lambda: ops.requantize(ACC, 0.5, bias=X[0], rounding="fixed_point"),
        "bias: expected int32, got float32 of shape (6,)",
    ),
    "far axis": (
        lambda: ops.requantize(ACC.reshape(2, 2, 6), [1.0, 2.0], axis=0, bias=ACC[0]),
        "bias: expected values along one of the last two axes, got axis 0",
    ),
    "multiplier of fixed point": (
        lambda: ops.requantize(ACC, 2.0**31, rounding="fixed_point"),
        "multiplier: a fixed-point multiplier is in (0, 2**30), not 2147483648.0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_named(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(OperandError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        call()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
