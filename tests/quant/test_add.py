"""Sums of codes: the factors, one rounding a step, and the codes of ONNX Runtime's QLinearAdd."""

from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lowgemm.quant import add_codes, sum_factors
from lowgemm.quant._add import fma


def test_fma_rounds_once() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, 2000)
    b, c = np.float32(rng.uniform(0.1, 2)), rng.normal(0, 100, 2000).astype(np.float32)
    exact = [int(x) * Fraction(float(b)) + Fraction(float(y)) for x, y in zip(a, c, strict=True)]
    nearest = fma(a, b, c)
    for got, want in zip(nearest, exact, strict=True):
        step = np.spacing(got)
        assert abs(Fraction(float(got)) - want) <= Fraction(float(abs(step))) / 2
    # Rounding the product first gives another result somewhere: the data can tell the two apart.
    assert (a.astype(np.float32) * b + c != nearest).any()


def test_zero_points_are_taken_off_and_put_on() -> None:
    factors = sum_factors((0.5, 10), (1.5, 20), (1.0, 30))
    assert factors == (0.5, 1.5, 30 - 35)
    a, b = np.array([10, 12, 14], np.uint8), np.array([20, 20, 22], np.uint8)
    assert add_codes(a, b, factors, 0, 255, "uint8").tolist() == [30, 31, 35]


def test_the_sum_is_clamped() -> None:
    a = np.array([0, 255], np.uint8)
    factors = sum_factors((1.0, 100), (1.0, 100), (1.0, 100))
    assert add_codes(a, a, factors, 100, 250, "uint8").tolist() == [100, 250]


@pytest.mark.parametrize("seed", range(8))
def test_codes_are_those_of_onnx_runtime(seed: int) -> None:
    """Every pair of codes; zero points of 0 as behind a ReLU, and any."""
    ort = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.01, 0.1, 3).astype(np.float32).tolist()
    points = [0, 0, 0] if seed % 2 else rng.integers(0, 256, 3).tolist()
    a, b = (x.ravel().astype(np.uint8) for x in np.meshgrid(np.arange(256), np.arange(256)))
    constants = [
        helper.make_tensor(f"{kind}{i}", type_, [], [value])
        for kind, type_, values in (
            ("scale", TensorProto.FLOAT, scales),
            ("point", TensorProto.UINT8, points),
        )
        for i, value in enumerate(values)
    ]
    names = ["a", "scale0", "point0", "b", "scale1", "point1", "scale2", "point2"]
    node = helper.make_node("QLinearAdd", names, ["y"], domain="com.microsoft")
    ports = {n: helper.make_tensor_value_info(n, TensorProto.UINT8, [a.size]) for n in "aby"}
    graph = helper.make_graph([node], "sum", [ports["a"], ports["b"]], [ports["y"]], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString())
    (want,) = session.run(None, {"a": a, "b": b})
    first, second, out = zip(scales, points, strict=True)
    got = add_codes(a, b, sum_factors(first, second, out), 0, 255, "uint8")
    assert np.array_equal(got, want)
