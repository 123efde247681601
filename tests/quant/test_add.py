"""Sums of codes: the factors, and the codes of ONNX Runtime's QLinearAdd."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lowgemm.quant import add_codes, sum_factors


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
