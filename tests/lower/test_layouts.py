"""Codes with four axes are stored NHWC, everything else in the model's order; every border converts."""

import numpy as np
import pytest

import whole
from whole import Model, codes

pytestmark = pytest.mark.isa(whole.LEVEL)

# In a cube the two orders have the same shape, so nothing but the rule can tell them apart.
CUBE, MAP = (1, 8, 8, 8), (1, 4, 5, 8)


def small(*shape: int) -> np.ndarray:
    """Weights whose sums do not saturate everywhere."""
    return np.random.default_rng(shape).integers(-3, 4, shape).astype(np.int8)


@pytest.mark.parametrize("shape", [CUBE, MAP], ids=["cube", "map"])
def test_output_of_a_convolution(shape: tuple[int, ...]) -> None:
    m = Model(x=codes(*shape))
    w = m.weight(small(8, shape[1], 3, 3), 0.125)
    y = m.op("Conv", m.dequantize("x", 1, 100), w, pads=[1, 1, 1, 1])
    m.check(m.quantize(y, 4, 128))


@pytest.mark.parametrize("shape", [CUBE, MAP], ids=["cube", "map"])
def test_float_output_of_a_convolution(shape: tuple[int, ...]) -> None:
    m = Model(x=codes(*shape))
    w = m.weight(small(8, shape[1], 3, 3), 0.125)
    m.check(m.op("Conv", m.dequantize("x", 1, 100), w, pads=[1, 1, 1, 1]))


@pytest.mark.parametrize("shape", [CUBE, MAP, (5, 8), (3, 5, 8), (8,)], ids=str)
@pytest.mark.parametrize("quantized", [True, False], ids=["codes", "float"])
def test_product_multiplies_along_the_last_axis(shape: tuple[int, ...], quantized: bool) -> None:
    m = Model(x=codes(*shape))
    y = m.op("MatMul", m.dequantize("x", 1, 100), m.weight(small(8, 16), 0.125))
    m.check(m.quantize(y, 4, 128) if quantized else y)


@pytest.mark.parametrize("shape", [CUBE, MAP, (5, 8), (3, 5, 8)], ids=str)
def test_sum_behind_a_product(shape: tuple[int, ...]) -> None:
    m = Model(x=codes(*shape), z=codes(*shape[:-1], 16))
    y = m.op("MatMul", m.dequantize("x", 1, 100), m.weight(small(8, 16), 0.125))
    y = m.dequantize(m.quantize(y, 2, 120), 2, 120)
    total = m.quantize(m.op("Relu", m.op("Add", m.dequantize("z", 1, 90), y)), 4, 10)
    assert [node.op for node in m.fused(total).nodes] == ["QConv"]
    m.check(total)


def test_product_between_convolutions() -> None:
    m = Model(x=codes(*CUBE))
    w = m.weight(small(8, 8, 1, 1), 0.125)
    a = m.dequantize(m.quantize(m.op("Conv", m.dequantize("x", 1, 100), w), 1, 128), 1, 128)
    b = m.op("MatMul", a, m.weight(small(8, 8), 0.125))
    b = m.dequantize(m.quantize(b, 1, 128), 1, 128)
    c = m.op("Conv", m.dequantize(m.quantize(m.op("Add", a, b), 2, 128), 2, 128), w)
    m.check(m.quantize(c, 2, 128))


@pytest.mark.parametrize("shape", [CUBE, MAP], ids=["cube", "map"])
def test_float_operator_reads_codes_of_the_input(shape: tuple[int, ...]) -> None:
    """An integer operator reads the same input in the other order."""
    m = Model(x=codes(*shape))
    y = m.op("ReduceSum", m.op("Cast", "x", to=1), m.constant([3]), keepdims=0)
    z = m.quantize(m.op("Relu", m.dequantize("x", 1, 100)), 2, 3)
    m.check(y, z)


@pytest.mark.parametrize("shape", [CUBE, MAP], ids=["cube", "map"])
def test_float_operator_reads_codes_of_an_operator(shape: tuple[int, ...]) -> None:
    m = Model(x=codes(*shape))
    y = m.quantize(m.op("Relu", m.dequantize("x", 1, 100)), 2, 3)
    m.check(m.op("ReduceSum", m.op("Cast", y, to=1), m.constant([3]), keepdims=0), y)


@pytest.mark.parametrize("shape", [CUBE, MAP], ids=["cube", "map"])
def test_float_operator_computes_codes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    m = Model(x=rng.integers(0, 256, shape).astype(np.float32))
    y = m.op("Cast", "x", to=2)
    m.check(m.quantize(m.op("Relu", m.dequantize(y, 1, 100)), 2, 3), y)


def test_input_that_is_returned() -> None:
    m = Model(x=codes(*MAP))
    y = m.quantize(m.op("Relu", m.dequantize("x", 1, 100)), 2, 3)
    m.check(y, m.quantize(m.dequantize("x")))


@pytest.mark.parametrize("shape", [CUBE, MAP], ids=["cube", "map"])
def test_quantize_and_dequantize_change_the_order(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    m = Model(x=(rng.standard_normal(shape) * 20).astype(np.float32))
    y = m.quantize("x", 0.5, 100)
    m.check(y, m.dequantize(y, 0.5, 100))


@pytest.mark.parametrize("shape", [(2, 6, 1, 1), (2, 1, 3, 4), (2, 6, 1, 4)], ids=str)
def test_orders_that_coincide_or_nearly(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    m = Model(x=(rng.standard_normal(shape) * 20).astype(np.float32))
    y = m.quantize("x", 0.5, 100)
    z = m.quantize(m.op("Relu", m.dequantize(y, 0.5, 100)), 1, 3)
    m.check(y, z, m.dequantize(z, 1, 3))


MOVES = {
    "flatten": ("Reshape", [1, -1], {}),
    "split-an-axis": ("Reshape", [1, 2, 4, 8, 8], {}),
    "reshape-the-map": ("Reshape", [1, 4, 16, 8], {}),
    "reverse": ("Transpose", None, {"perm": [3, 2, 1, 0]}),
    "to-channels-last": ("Transpose", None, {"perm": [0, 2, 3, 1]}),
    "drop-the-batch": ("Squeeze", [0], {}),
}


@pytest.mark.parametrize("move", MOVES)
def test_move_of_a_cube(move: str) -> None:
    op, argument, attrs = MOVES[move]
    m = Model(x=codes(*CUBE))
    inputs = [] if argument is None else [m.constant(argument, np.int64)]
    a = m.dequantize(m.quantize(m.op("Relu", m.dequantize("x", 1, 100)), 1, 3), 1, 3)
    m.check(m.quantize(m.op(op, a, *inputs, **attrs), 1, 3))


@pytest.mark.parametrize("point", [3, 9], ids=["same-parameters", "others"])
def test_move_to_other_parameters(point: int) -> None:
    m = Model(x=codes(*MAP))
    y = m.op("Transpose", m.dequantize("x", 1, 3), perm=[0, 3, 1, 2])
    y = m.quantize(y, 1, point)
    assert [node.op for node in m.fused(y).nodes] == ["QLut", "QMove"][point == 3 :]
    m.check(y)


@pytest.mark.parametrize("axis", range(4))
def test_concat_of_cubes(axis: int) -> None:
    m = Model(x=codes(*CUBE), y=codes(*CUBE, seed=1))
    z = m.op("Concat", m.dequantize("x", 1, 3), m.dequantize("y", 2, 3), axis=axis)
    m.check(m.quantize(z, 2, 3))
