"""What lies between a float region and the program around it: names, shapes, constants."""

import numpy as np
import pytest

from lowgemm import lower
from lowgemm.errors import UnsupportedOperatorError
from lowgemm.passes import fuse_quantized
from lowgemm.reference import run_graph
from lowgemm.targets import LEVELS

import kernels
import whole
from isa import isas
from whole import Model, codes

# TVM's exponential is right to some 1e-6 of its value, and squaring doubles that.
EXP_TOLERANCE = 5e-6

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
    np.testing.assert_allclose(found, expected, EXP_TOLERANCE, EXP_TOLERANCE)


@pytest.mark.parametrize("shape", [(3, 1), (5, 15), (2, 3, 16), (7, 41), (2, 6625)], ids=str)
@pytest.mark.parametrize("level", isas())
def test_softmax_of_rows(level: str, shape: tuple[int, ...]) -> None:
    """Rows shorter than a vector, whole vectors, and some elements more; large sums, and what lies far below."""
    x = np.random.default_rng(shape).normal(0, 20, shape).astype(np.float32)
    x[0] += 1000
    m = Model(x=x)
    y = m.op("Softmax", "x", axis=-1)
    fused = m.fused(y)
    assert [node.op for node in fused.nodes] == ["RowSoftmax"]
    found = kernels.run(fused, level, m.inputs)[y]
    np.testing.assert_allclose(found, run_graph(m.graph(y), m.inputs)[y], EXP_TOLERANCE, 1e-30)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(3, 1), (5, 15), (2, 3, 16), (7, 41), (2, 6625)], ids=str)
@pytest.mark.parametrize("level", isas())
def test_softmax_of_codes(level: str, shape: tuple[int, ...], dtype: str) -> None:
    """Of all codes, and of rows of the least one alone."""
    x = np.random.default_rng(shape).integers(0, 256, shape).astype(np.uint8).view(dtype)
    x[0] = np.iinfo(dtype).min
    m = Model(x=x)
    y = m.op("Softmax", m.dequantize("x", 0.125, 100, dtype), axis=-1)
    fused = m.fused(y)
    assert [node.op for node in fused.nodes] == ["RowSoftmax"]
    found = kernels.run(fused, level, m.inputs)[y]
    np.testing.assert_allclose(found, run_graph(m.graph(y), m.inputs)[y], EXP_TOLERANCE, 1e-30)


def test_softmax_of_codes_that_are_read_elsewhere_or_lie_channels_last() -> None:
    for shape, outputs in (((3, 40), 2), ((1, 8, 5, 6), 1)):
        m = Model(x=codes(*shape))
        real = m.dequantize("x", 0.1, 7)
        y = m.op("Softmax", real, axis=-1)
        fused = m.fused(*(y, real)[:outputs])
        assert [node.op for node in fused.nodes] == ["Dequantize", "RowSoftmax"]


def test_reshapes_of_real_numbers_are_no_copies() -> None:
    """Of what a kernel has written. What comes from outside, or goes there under two names, is copied."""
    m = Model(x=codes(2, 3, 16))
    real = m.op("Softmax", m.dequantize("x", 0.1, 7), axis=-1)
    shaped = m.op("Reshape", real, m.constant([3, 32]))
    again = m.op("Reshape", shaped, m.constant([4, 24]))
    for outputs in ((shaped,), (again,), (real, shaped), (again, shaped)):
        want = run_graph(m.graph(*outputs), m.inputs)
        found = kernels.run(m.fused(*outputs), whole.LEVEL, m.inputs)
        for name in outputs:
            assert found[name].shape == want[name].shape
            np.testing.assert_allclose(found[name], want[name], EXP_TOLERANCE)
    program = lower.lower(m.fused(again), LEVELS[whole.LEVEL], 1)
    assert not [call.kernel for call in program.calls if call.kernel.startswith("float")]
    n = Model(x=np.arange(6, dtype=np.float32))
    n.check(n.op("Reshape", "x", n.constant([2, 3])))


def test_softmax_of_what_is_no_number() -> None:
    x = np.zeros((4, 20), np.float32)
    x[0, 3], x[1, 19], x[2, 5:], x[3] = np.nan, np.nan, -np.inf, -np.inf
    m = Model(x=x)
    y = m.op("Softmax", "x", axis=-1)
    with np.errstate(invalid="ignore"):
        expected = run_graph(m.graph(y), m.inputs)[y]
    found = kernels.run(m.fused(y), whole.LEVEL, m.inputs)[y]
    np.testing.assert_allclose(found, expected, EXP_TOLERANCE, 1e-30)


def test_product_of_two_computed_matrices() -> None:
    """Columns that a vector divides, and a number that is odd."""
    generator = np.random.default_rng(0)
    for columns in (40, 15, 1):
        a, b = (
            generator.integers(-9, 9, s).astype(np.float32) for s in ((2, 8, 40), (2, 40, columns))
        )
        m = Model(a=a, b=b)
        m.check(m.op("MatMul", "a", "b"))


def test_celu() -> None:
    m = Model(x=np.linspace(-20, 20, 101, dtype=np.float32))
    y = m.op("Celu", "x", alpha=3.0)
    graph = m.graph(y)
    expected = run_graph(graph, m.inputs)[y]
    found = kernels.run(fuse_quantized(graph), whole.LEVEL, m.inputs)[y]
    np.testing.assert_allclose(found, expected, EXP_TOLERANCE, EXP_TOLERANCE)


def test_integer_exponent() -> None:
    """As exporters write squares."""
    m = Model(x=np.array([-3, 0.5, 2], np.float32))
    m.check(m.op("Pow", "x", m.constant(2, np.int64)))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_indices_outside_read_nothing_else(dtype: type) -> None:
    """A user gives them; the nearest end is taken."""
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    m = Model(i=np.array([[0, 3, -1], [-4, 4, 10**9], [-5, -(10**9), 2]], dtype))
    y = m.op("Gather", m.constant(rows), "i", axis=0)
    found = kernels.run(m.fused(y), whole.LEVEL, m.inputs)[y]
    assert np.array_equal(found, rows[[[0, 3, 3], [0, 3, 3], [0, 0, 2]]])


def test_form_that_the_importer_does_not_take(capfd: pytest.CaptureFixture[str]) -> None:
    """Which it tells by a TypeError, and to whoever looks at the screen."""
    m = Model(x=np.array([1, 2], np.float32), k=np.array([2, 3]))
    with pytest.raises(UnsupportedOperatorError, match="the_Pow"):
        m.check(m.op("Pow", "x", "k"))
    assert capfd.readouterr().out == ""


def test_form_that_the_importer_misreads() -> None:
    m = Model(x=np.array([np.inf, -np.inf, 1], np.float32))
    with pytest.raises(UnsupportedOperatorError, match="the_IsInf"):
        m.check(m.op("IsInf", "x", detect_negative=0))
