"""Integer operators: computed by way of DequantizeLinear they give what the operator gives."""

from typing import Any

import numpy as np
import pytest

from lowgemm.errors import UnsupportedOperatorError
from lowgemm.frontend import load_onnx, to_onnx
from lowgemm.reference import conv2d_i32, requantize, run_graph

import onnx_models
from onnx_models import Arrays, node

MS = "com.microsoft"
RNG = np.random.default_rng(11)
X_SCALE, W_SCALE, Y_SCALE = np.float32(0.037), np.float32(0.021), np.float32(0.11)
X_ZERO, W_ZERO, Y_ZERO = np.uint8(121), np.int8(0), np.uint8(130)


def weight(*shape: int) -> np.ndarray:
    """7-bit weights: ONNX Runtime's kernels saturate with more, on CPUs without VNNI."""
    return RNG.integers(-63, 64, shape).astype(np.int8)


def channel_scales(count: int) -> np.ndarray:
    return RNG.uniform(0.005, 0.03, count).astype(np.float32)


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def check(op: str, inputs: str, data: Arrays, constants: Arrays, domain: str = "", **attrs: Any):
    """Compare one operator, as imported, with ONNX Runtime; return what it was rewritten to."""
    proto = onnx_models.model([node(op, inputs, "y", domain, **attrs)], data, "y", constants, 20)
    expected = onnx_models.run_ort(proto, data)["y"]
    graph = load_onnx(proto)
    assert not {n.op for n in graph.nodes} & {op, "Transpose"}
    assert graph.types["y"].shape == expected.shape
    for found in (run_graph(graph, data)["y"], onnx_models.run_ort(to_onnx(graph), data)["y"]):
        assert found.dtype == expected.dtype
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            continue
        apart = np.abs(found.astype(int) - expected.astype(int))
        assert apart.max() <= 1
        # A handful of elements lie on a tie that float32 products decide either way.
        assert np.count_nonzero(apart) <= max(1, apart.size // 1000)
    return [n.op for n in graph.nodes if n.op != "DequantizeLinear"]


CONV = "x xs xz w ws wz ys yz"
OPERANDS = {"xs": X_SCALE, "xz": X_ZERO, "ys": Y_SCALE, "yz": Y_ZERO}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_conv(per_channel: bool, bias: bool):
    constants = {
        **OPERANDS,
        "w": weight(6, 2, 3, 3),
        "ws": channel_scales(6) if per_channel else W_SCALE,
        "wz": np.zeros(6, np.int8) if per_channel else W_ZERO,
    }
    if bias:
        constants["b"] = RNG.integers(-3000, 3000, 6).astype(np.int32)
    inputs = f"{CONV} b" if bias else CONV
    data = {"x": integers(2, 4, 9, 8)}
    attrs = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}
    assert check("QLinearConv", inputs, data, constants, **attrs) == ["Conv", "QuantizeLinear"]


def test_qlinear_conv_equals_integer_arithmetic():
    x, w = integers(1, 3, 8, 8), RNG.integers(-128, 128, (5, 3, 3, 3)).astype(np.int8)
    scales, bias = channel_scales(5), RNG.integers(-9000, 9000, 5).astype(np.int32)
    constants = {**OPERANDS, "w": w, "ws": scales, "wz": np.zeros(5, np.int8), "b": bias}
    proto = onnx_models.model(
        [node("QLinearConv", f"{CONV} b", "y", pads=[1, 1, 1, 1])], {"x": x}, "y", constants
    )
    acc = conv2d_i32(x, w, int(X_ZERO), pads=(1, 1, 1, 1), layout="NCHW")
    multiplier = (X_SCALE * scales / Y_SCALE).reshape(1, 5, 1, 1)
    expected = requantize(acc + bias.reshape(1, 5, 1, 1), multiplier, int(Y_ZERO))
    found = run_graph(load_onnx(proto), {"x": x})["y"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("rank", [2, 3])
def test_qlinear_matmul(per_column: bool, rank: int):
    constants = {
        **OPERANDS,
        "w": weight(17, 5),
        "ws": channel_scales(5) if per_column else W_SCALE,
        "wz": np.zeros(5, np.int8) if per_column else W_ZERO,
    }
    data = {"x": integers(*(2, 3, 17)[3 - rank :])}
    expected = ["Gemm" if rank == 2 else "MatMul", "QuantizeLinear"]
    assert check("QLinearMatMul", CONV, data, constants) == expected


def test_qlinear_matmul_of_two_activations():
    constants = {**OPERANDS, "ws": W_SCALE, "wz": np.uint8(99)}
    data = {"x": integers(2, 3, 7), "w": integers(2, 7, 4) // 2}
    assert check("QLinearMatMul", CONV, data, constants) == ["MatMul", "QuantizeLinear"]


@pytest.mark.parametrize("points", ["", " xz", " xz wz"])
def test_matmul_integer(points: str):
    constants = {"w": weight(9, 4), "xz": X_ZERO, "wz": np.int8(3)}
    used = {key: value for key, value in constants.items() if key in f"w{points}".split()}
    check("MatMulInteger", f"x w{points}", {"x": integers(3, 9)}, used)


def test_matmul_integer_with_a_zero_point_for_every_column():
    constants = {"w": weight(9, 4), "xz": X_ZERO, "wz": np.arange(4, dtype=np.int8)}
    check("MatMulInteger", "x w xz wz", {"x": integers(3, 9)}, constants)


def test_conv_integer():
    constants = {"w": integers(5, 3, 3, 3) // 2, "xz": X_ZERO, "wz": np.uint8(60)}
    data = {"x": integers(1, 3, 7, 7)}
    found = check("ConvInteger", "x w xz wz", data, constants, pads=[1, 1, 1, 1])
    assert found == ["Conv", "Cast"]


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 1, 1)])
def test_qlinear_binary(op: str, shape: tuple[int, ...]):
    constants = {**OPERANDS, "ws": W_SCALE, "wz": np.uint8(7)}
    data = {"x": integers(2, 3, 4, 5), "w": integers(*shape)}
    found = check(op, CONV, data, constants, MS)
    assert found == [op.removeprefix("QLinear"), "QuantizeLinear"]


def test_qlinear_binary_with_a_constant():
    constants = {**OPERANDS, "w": integers(3, 1, 1), "ws": W_SCALE, "wz": np.uint8(7)}
    check("QLinearMul", CONV, {"x": integers(2, 3, 4, 5)}, constants, MS)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("rest", ["b ys yz", "- ys yz", "b", ""])
def test_qgemm(transposed: int, per_column: bool, rest: str):
    constants = {
        **OPERANDS,
        "w": weight(5, 19) if transposed else weight(19, 5),
        "ws": channel_scales(5) if per_column else W_SCALE,
        "wz": np.zeros(5, np.int8) if per_column else W_ZERO,
        "b": RNG.integers(-3000, 3000, 5).astype(np.int32),
    }
    names = f"x xs xz w ws wz {rest}"
    used = {key: value for key, value in constants.items() if key in names.split()}
    found = check("QGemm", names, {"x": integers(3, 19)}, used, MS, transB=transposed, alpha=1.0)
    assert found == ["Gemm", "QuantizeLinear"] if "ys" in rest else ["Gemm"]


def test_qgemm_with_a_factor():
    constants = {**OPERANDS, "w": weight(19, 5), "ws": W_SCALE, "wz": W_ZERO}
    constants["b"] = RNG.integers(-3000, 3000, 5).astype(np.int32)
    data = {"x": integers(3, 19)}
    found = check("QGemm", "x xs xz w ws wz b ys yz", data, constants, MS, alpha=0.5)
    assert found == ["Gemm", "QuantizeLinear"]


def test_qlinear_global_average_pool():
    data = {"x": integers(2, 5, 7, 6)}
    found = check("QLinearGlobalAveragePool", "x xs xz ys yz", data, OPERANDS, MS)
    assert found == ["GlobalAveragePool", "QuantizeLinear"]
    data = {"x": integers(2, 7, 6, 5)}
    check("QLinearGlobalAveragePool", "x xs xz ys yz", data, OPERANDS, MS, channels_last=1)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_qlinear_average_pool(ceil_mode: int, count_include_pad: int):
    attrs = {
        "kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1],
        "ceil_mode": ceil_mode, "count_include_pad": count_include_pad,
    }  # fmt: skip
    data = {"x": integers(2, 3, 9, 8)}
    check("QLinearAveragePool", "x xs xz ys yz", data, OPERANDS, MS, **attrs)


def test_qlinear_concat():
    constants = {**OPERANDS, "ws": W_SCALE, "wz": np.uint8(7)}
    data = {"x": integers(2, 3, 4), "w": integers(2, 2, 4)}
    found = check("QLinearConcat", "ys yz x xs xz w ws wz", data, constants, MS, axis=1)
    assert found == ["Concat", "QuantizeLinear"]


@pytest.mark.parametrize(
    ("op", "attrs"),
    [("QLinearLeakyRelu", {"alpha": 0.2}), ("QLinearSigmoid", {})],
)
def test_qlinear_table(op: str, attrs: dict[str, float]):
    constants = {**OPERANDS, "ys": np.float32(1 / 50)}
    check(op, "x xs xz ys yz", {"x": integers(2, 100)}, constants, MS, **attrs)


def test_qlinear_softmax():
    constants = {**OPERANDS, "ys": np.float32(1 / 256), "yz": np.uint8(0)}
    data = {"x": integers(4, 10)}
    check("QLinearSoftmax", "x xs xz ys yz", data, constants, MS, axis=-1, opset=13)


def test_a_scale_known_only_at_run_time_is_refused_where_the_bias_needs_it():
    constants = {**OPERANDS, "w": weight(5, 3, 3, 3), "ws": W_SCALE, "wz": W_ZERO}
    constants["b"] = np.zeros(5, np.int32)
    del constants["xs"]
    inputs = {"x": ("uint8", [1, 3, 8, 8]), "xs": ("float32", [])}
    proto = onnx_models.model([node("QLinearConv", f"{CONV} b", "y")], inputs, "y", constants)
    with pytest.raises(UnsupportedOperatorError, match="scale of the input must be known"):
        load_onnx(proto)
