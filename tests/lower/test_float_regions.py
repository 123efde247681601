"""What lies between a float region and the program around it: names, shapes, constants."""

import numpy as np
import pytest

from lowgemm.errors import UnsupportedOperatorError
from lowgemm.passes import fuse_quantized

import kernels
import whole
from whole import Model, codes

# TVM's exponential is right to some 1e-6 of its value, and squaring doubles that.
HYPERBOLIC_TOLERANCE = 5e-6

pytestmark = pytest.mark.isa(whole.LEVEL)


def test_names_that_are_no_identifiers() -> None:
    """TVM's importer warns of them, and warnings are errors."""
    m = Model(**{"layer.1/x:0": np.array([-1, 2], np.float32)})
    m.check(m.op("Exp", m.op("Relu", "layer.1/x:0")))


def test_scalar_constant_stays_a_scalar() -> None:
    """A kernel checks how many axes its arguments have."""
    m = Model(x=codes(6))
    m.check(m.op("Mul", m.op("Cast", "x", to=1), m.constant(0.5, np.float32)))


def test_region_between_integer_operators() -> None:
    m = Model(x=codes(1, 8, 4, 4))
    a = m.dequantize(m.quantize(m.op("Relu", m.dequantize("x", 1, 100)), 1, 9), 1, 9)
    b = m.op("Sub", a, m.op("ReduceMax", a, m.constant([1]), keepdims=1))
    m.check(m.quantize(m.op("Relu", m.dequantize(m.quantize(b, 1, 200), 1, 200)), 2, 3))


@pytest.mark.parametrize("op", ["Sinh", "Cosh"])
def test_hyperbolic(op: str) -> None:
    """Up to where the result overflows, which is beyond where the exponential does."""
    x = np.concatenate([np.logspace(-9, 1.9, 200), [0, 88.8, 89.4, 90]]).astype(np.float32)
    m = Model(x=np.concatenate([x, -x]))
    y = m.op(op, "x")
    graph = m.graph(y)
    with np.errstate(over="ignore"):
        expected = getattr(np, op.lower())(m.inputs["x"].astype(np.float64)).astype(np.float32)
    found = kernels.run(fuse_quantized(graph), whole.LEVEL, m.inputs)[y]
    np.testing.assert_allclose(found, expected, HYPERBOLIC_TOLERANCE, HYPERBOLIC_TOLERANCE)


def test_form_that_the_importer_does_not_take() -> None:
    """Which it tells by a TypeError."""
    m = Model(x=np.array([1, 2], np.float32))
    with pytest.raises(UnsupportedOperatorError, match="the_Pow"):
        m.check(m.op("Pow", "x", m.constant([2, 3], np.int64)))


def test_form_that_the_importer_misreads() -> None:
    m = Model(x=np.array([np.inf, -np.inf, 1], np.float32))
    with pytest.raises(UnsupportedOperatorError, match="the_IsInf"):
        m.check(m.op("IsInf", "x", detect_negative=0))
