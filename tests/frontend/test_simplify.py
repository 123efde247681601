"""Rewritings keep the function: what they find, what they leave alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from lowgemm.frontend import load_onnx, to_onnx
from lowgemm.graph import Graph
from lowgemm.reference import run_graph

import onnx_models
from onnx_models import Arrays, node

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


IMAGE = normal(2, 4, 8, 7)


def simplified(
    nodes: Sequence[onnx.NodeProto], x: np.ndarray, constants: Mapping[str, Any], outputs: str = "y"
) -> Graph:
    """Import a model, check its outputs against ONNX Runtime, and return the graph."""
    proto = onnx_models.model(nodes, {"x": x}, outputs, constants)
    expected = onnx_models.run_ort(proto, {"x": x})
    graph = load_onnx(proto)
    for found in (run_graph(graph, {"x": x}), onnx_models.run_ort(to_onnx(graph), {"x": x})):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def batch_norm(x: str, y: str) -> tuple[onnx.NodeProto, Arrays]:
    constants = {"s": normal(4), "b": normal(4), "m": normal(4), "v": abs(normal(4)) + 0.1}
    return node("BatchNormalization", f"{x} s b m v", y), constants


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_normalization_folds_into_a_convolution(op: str, group: int, bias: bool):
    norm, constants = batch_norm("t", "y")
    shape = (4, 4 // group, 3, 3)
    constants["w"] = normal(*shape)
    if bias:
        constants["c"] = normal(4)
    inputs = "x w c" if bias else "x w"
    graph = simplified([node(op, inputs, "t", group=group), norm], IMAGE, constants)
    assert ops(graph) == [op]
    assert graph.nodes[0].output == "y"
    assert len(graph.nodes[0].inputs) == 3


def test_batch_normalization_folds_into_a_gemm():
    norm, constants = batch_norm("t", "y")
    constants["w"] = normal(6, 4)
    graph = simplified([node("Gemm", "x w", "t"), norm], normal(3, 6), constants)
    assert ops(graph) == ["Gemm"]


def test_batch_normalization_elsewhere_is_mul_and_add():
    norm, constants = batch_norm("x", "t")
    graph = simplified([norm, node("Relu", "t", "y")], IMAGE, constants)
    assert ops(graph) == ["Mul", "Add", "Relu"]


def test_a_convolution_that_others_read_is_left_alone():
    norm, constants = batch_norm("t", "y")
    constants["w"] = normal(4, 4, 3, 3)
    nodes = [node("Conv", "x w", "t"), norm, node("Relu", "t", "z")]
    assert ops(simplified(nodes, IMAGE, constants, "y z")) == ["Conv", "Mul", "Add", "Relu"]
    assert ops(simplified(nodes[:2], IMAGE, constants, "y t")) == ["Conv", "Mul", "Add"]


def test_weights_that_two_convolutions_share_are_not_scaled_twice():
    norm, constants = batch_norm("t", "n")
    constants["w"] = normal(4, 4, 3, 3)
    nodes = [
        node("Conv", "x w", "t"), norm, node("Conv", "x w", "u"), node("Add", "n u", "y"),
    ]  # fmt: skip
    assert ops(simplified(nodes, IMAGE, constants)) == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), ()])
def test_a_factor_and_a_shift_for_every_channel_fold(shape: tuple[int, ...]):
    constants = {"w": normal(4, 4, 1, 1), "f": normal(*shape), "s": normal(*shape)}
    nodes = [node("Conv", "x w", "t"), node("Div", "t f", "u"), node("Sub", "u s", "y")]
    assert ops(simplified(nodes, IMAGE, constants)) == ["Conv"]


@pytest.mark.parametrize("shape", [(1, 1, 7), (2, 1, 1, 1), (8, 7)])
def test_other_shifts_do_not_fold(shape: tuple[int, ...]):
    constants = {"w": normal(4, 4, 1, 1), "s": normal(*shape)}
    nodes = [node("Conv", "x w", "t"), node("Add", "t s", "y")]
    assert ops(simplified(nodes, IMAGE, constants)) == ["Conv", "Add"]


SIX, THREE = np.float32(6), np.float32(3)
HARD = {"three": THREE, "zero": np.float32(0), "six": SIX, "sixth": np.float32(1 / 6)}
CLIPPED = [node("Add", "x three", "a"), node("Clip", "a zero six", "c")]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ([node("Div", "c six", "y")], "HardSigmoid"),
        ([node("Mul", "sixth c", "y")], "HardSigmoid"),
        ([node("Div", "c six", "d"), node("Mul", "x d", "y")], "HardSwish"),
        ([node("Mul", "c x", "d"), node("Div", "d six", "y")], "HardSwish"),
        ([node("Mul", "x c", "d"), node("Mul", "d sixth", "y")], "HardSwish"),
    ],
)
def test_hard_activations_spelled_out(tail: list[onnx.NodeProto], expected: str):
    assert ops(simplified([*CLIPPED, *tail], IMAGE, HARD)) == [expected]


def test_hard_swish_and_silu_from_their_gates():
    gates = {
        "HardSwish": node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5),
        "Silu": node("Sigmoid", "x", "g"),
    }
    for expected, gate in gates.items():
        for operands in ("x g", "g x"):
            assert ops(simplified([gate, node("Mul", operands, "y")], IMAGE, {})) == [expected]


def test_another_slope_is_no_hard_swish():
    gate = node("HardSigmoid", "x", "g", alpha=0.2, beta=0.5)
    found = ops(simplified([gate, node("Mul", "x g", "y")], IMAGE, {}))
    assert found == ["HardSigmoid", "Mul"]


def test_a_gate_on_another_tensor_is_no_silu():
    nodes = [node("Neg", "x", "n"), node("Sigmoid", "n", "g"), node("Mul", "x g", "y")]
    assert ops(simplified(nodes, IMAGE, {})) == ["Neg", "Sigmoid", "Mul"]


GELU = {
    "root": np.float32(math.sqrt(2)),
    "inverse": np.float32(math.sqrt(0.5)),
    "one": np.float32(1),
    "half": np.float32(0.5),
}


@pytest.mark.parametrize("scale", [node("Div", "x root", "a"), node("Mul", "x inverse", "a")])
@pytest.mark.parametrize(
    "tail",
    [
        [node("Mul", "x c", "d"), node("Mul", "d half", "y")],
        [node("Mul", "half x", "d"), node("Mul", "d c", "y")],
        [node("Mul", "c half", "d"), node("Mul", "x d", "y")],
    ],
)
def test_gelu(scale: onnx.NodeProto, tail: list[onnx.NodeProto]):
    nodes = [scale, node("Erf", "a", "b"), node("Add", "b one", "c"), *tail]
    assert ops(simplified(nodes, IMAGE, GELU)) == ["Gelu"]


def test_padding_moves_into_the_convolution():
    pads = np.array([0, 0, 1, 2, 0, 0, 0, 1])
    nodes = [node("Pad", "x p", "t"), node("Conv", "t w", "y", pads=[1, 1, 0, 0])]
    graph = simplified(nodes, IMAGE, {"p": pads, "w": normal(3, 4, 3, 3)})
    assert ops(graph) == ["Conv"]
    assert graph.nodes[0].attrs["pads"] == [2, 3, 0, 1]


def test_padding_moves_into_pools():
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(-np.inf)}
    window: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}
    nodes = [node("Pad", "x p v", "t"), node("MaxPool", "t", "y", **window)]
    assert ops(simplified(nodes, IMAGE, constants)) == ["MaxPool"]
    nodes = [node("Pad", "x p", "t"), node("AveragePool", "t", "y", **window)]
    graph = simplified(nodes, IMAGE, constants)
    assert ops(graph) == ["AveragePool"]
    assert graph.nodes[0].attrs["count_include_pad"] == 1
    # A maximum over zeros is another thing than a maximum over nothing.
    nodes = [node("Pad", "x p", "t"), node("MaxPool", "t", "y", **window)]
    assert ops(simplified(nodes, IMAGE, constants)) == ["Pad", "MaxPool"]


@pytest.mark.parametrize(
    ("pads", "attrs"),
    [
        ([0, 1, 1, 1, 0, 0, 1, 1], {}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"mode": "edge"}),
        ([0, 0, -1, 1, 0, 0, 1, 1], {}),
    ],
)
def test_other_padding_stays(pads: list[int], attrs: dict[str, Any]):
    channels = 5 if pads[1] else 4
    nodes = [node("Pad", "x p", "t", **attrs), node("Conv", "t w", "y")]
    constants = {"p": np.array(pads), "w": normal(3, channels, 3, 3)}
    assert ops(simplified(nodes, IMAGE, constants)) == ["Pad", "Conv"]


QUANTIZED = {
    "xs": np.float32(0.03), "xz": np.uint8(120), "q": RNG.integers(-127, 128, (5, 6)).astype("i1"),
    "ws": RNG.uniform(0.01, 0.02, 5).astype(np.float32), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "k": RNG.integers(-127, 128, (3, 4, 3, 3)).astype("i1"), "os": np.float32(0.04),
}  # fmt: skip


def pair(x: str, y: str, scale: str = "xs") -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", f"{x} {scale} xz", f"{y}_q"),
        node("DequantizeLinear", f"{y}_q {scale} xz", y),
    ]


@pytest.mark.parametrize("scale", ["xs", "os"])
def test_quantized_padding_moves_if_nothing_is_rounded(scale: str):
    nodes = [
        *pair("x", "a"), node("Pad", "a p", "b"), *pair("b", "c", scale),
        node("DequantizeLinear", "k ks", "w"), node("Conv", "c w", "y"),
    ]  # fmt: skip
    graph = simplified(nodes, IMAGE, {**QUANTIZED, "ks": np.float32(0.01)})
    assert ("Pad" in ops(graph)) == (scale == "os")


def test_a_quantized_weight_is_transposed_as_integers():
    nodes = [
        node("DequantizeLinear", "q ws", "w", axis=0),
        node("Gemm", "x w", "y", transB=1, alpha=0.5),
    ]
    graph = simplified(nodes, normal(3, 6), QUANTIZED)
    assert ops(graph) == ["DequantizeLinear", "Gemm"]
    dequantize = graph.nodes[0]
    assert dequantize.attrs == {"axis": 1}
    assert graph.types[dequantize.inputs[0]].dtype == "int8"
    assert graph.types[dequantize.inputs[0]].shape == (6, 5)


def test_reshaping_follows_the_axis():
    nodes = [
        node("DequantizeLinear", "q ws", "w", axis=0),
        node("Unsqueeze", "w axes", "u"),
        node("Transpose", "u", "t", perm=[0, 2, 1]),
        node("MatMul", "x t", "y"),
    ]
    graph = simplified(nodes, normal(1, 3, 6), {**QUANTIZED, "axes": np.array([0])})
    assert ops(graph) == ["DequantizeLinear", "MatMul"]
    assert graph.nodes[0].attrs == {"axis": 2}


def test_a_float_weight_that_is_quantized_in_the_model_becomes_integers():
    nodes = [
        node("QuantizeLinear", "f ws wz", "q8", axis=0),
        node("DequantizeLinear", "q8 ws wz", "w", axis=0),
        node("Gemm", "x w", "y", transB=1),
    ]
    constants = {"f": normal(5, 6), "ws": QUANTIZED["ws"], "wz": np.zeros(5, np.int8)}
    graph = simplified(nodes, normal(3, 6), constants)
    assert ops(graph) == ["DequantizeLinear", "Gemm"]
    assert graph.types[graph.nodes[0].inputs[0]].dtype == "int8"


def test_matmul_with_a_weight_and_bias_is_one_gemm():
    constants = {"w": normal(6, 5), "b": normal(1, 5)}
    nodes = [node("MatMul", "x w", "t"), node("Add", "b t", "y")]
    graph = simplified(nodes, normal(3, 6), constants)
    assert ops(graph) == ["Gemm"]
    assert graph.types[graph.nodes[0].inputs[2]].shape == (5,)


@pytest.mark.parametrize("bias", [(5,), (1, 5)], ids=str)
def test_matmul_of_several_matrices_is_one_gemm_of_all_rows(bias: tuple[int, ...]):
    constants = {"w": normal(6, 5), "b": normal(*bias)}
    nodes = [node("MatMul", "x w", "t"), node("Add", "b t", "y")]
    graph = simplified(nodes, normal(2, 3, 6), constants)
    assert [op for op in ops(graph) if op != "Add"] == ["Reshape", "Gemm", "Reshape"]
    assert ("Add" in ops(graph)) == (len(bias) > 1), "a vector is a bias"


def test_a_product_of_two_computed_matrices_is_no_gemm():
    nodes = [
        node("Transpose", "x", "t"), node("Gemm", "x t c", "y"),
    ]  # fmt: skip
    assert ops(simplified(nodes, normal(3, 3), {"c": normal(3)})) == ["Transpose", "MatMul", "Add"]
