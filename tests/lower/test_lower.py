"""What lowering does around the kernels: orders of axes at the borders, shared kernels, errors."""

import numpy as np
import pytest

from lowgemm import lower
from lowgemm.errors import UnsupportedOperatorError
from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes import Quantization
from lowgemm.targets import LEVELS

import kernels

UNIT = Quantization(1.0, 0, "uint8")
INVERT = {"table": np.arange(255, -1, -1).astype(np.uint8), "in": UNIT, "out": UNIT}


def inverted(x: np.ndarray) -> Graph:
    node = Node("QLut", ["x"], ["y"], dict(INVERT), "invert")
    return kernels.graph_of([node], {"x": x}, {"y": (x.shape, "uint8")})


@pytest.mark.isa("avx2")
@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 5, 7),
        (1, 1, 4, 6),
        (1, 6, 1, 1),
        (1, 4, 1, 4),
        (1, 4, 4, 4),
        (3, 4, 5),
        (7,),
    ],
    ids=["map", "one-channel", "one-pixel", "one-row", "cube", "three-axes", "vector"],
)
def test_inputs_and_outputs_are_in_the_models_order(shape: tuple[int, ...]) -> None:
    x = kernels.full_range(np.random.default_rng(0), shape, "uint8")
    got = kernels.run(inverted(x), "avx2", {"x": x})
    assert np.array_equal(got["y"], 255 - x)


@pytest.mark.isa("avx2")
def test_an_output_may_be_an_input_and_be_there_twice() -> None:
    x = kernels.full_range(np.random.default_rng(0), (1, 3, 4, 5), "uint8")
    graph = inverted(x)
    graph.outputs = ["x", "y", "y"]
    program = lower.lower(graph, LEVELS["avx2"], 1)
    names = program.outputs
    got = kernels.execute(program, LEVELS["avx2"], {"x": x})
    assert len(set(names)) == 3
    for name, want in zip(names, (x, 255 - x, 255 - x), strict=True):
        assert np.array_equal(got[name], want)


def test_layers_of_one_form_share_a_kernel() -> None:
    pairs = (("x", "a"), ("a", "b"), ("b", "y"))
    nodes = [Node("QLut", [a], [b], dict(INVERT), f"{a}{b}") for a, b in pairs]
    types = dict.fromkeys("xaby", TensorType((64,), "uint8"))
    program = lower.lower(Graph("g", ["x"], ["y"], nodes, types), LEVELS["avx2"], 1)
    assert [call.layer for call in program.calls] == ["xa", "ab", "by"]
    assert len(program.kernels) == 1
    assert len(program.constants) == 1


def test_calls_say_what_they_compute() -> None:
    x = np.zeros((1, 8, 6, 7), np.uint8)
    attrs = {
        "gemm": False,
        "weight": np.ones((16, 8, 3, 3), np.int8),
        "bias": np.zeros(16, np.int32),
        "scale": np.ones(16, np.float32),
        "in": UNIT,
        "out": UNIT,
        "low": 0,
        "high": 255,
    }
    node = Node("QConv", ["x"], ["y"], attrs, "first")
    graph = kernels.graph_of([node], {"x": x}, {"y": ((1, 16, 4, 5), "uint8")})
    program = lower.lower(graph, LEVELS["avx512_vnni"], 1)
    (call,) = [call for call in program.calls if call.macs]
    assert (call.layer, call.macs) == ("first", 4 * 5 * 16 * 8 * 9)
    assert call.kernel.startswith("qconv2d_u8s8u8_")
    assert call.kernel.endswith("_avx512_vnni")
    assert call.writes == (len(call.args) - 1,)
    assert all(symbol.startswith("avx512_vnni_") for symbol in program.kernels)


def test_a_float_operator_that_tvm_cannot_import_is_named() -> None:
    types = {"x": TensorType((4, 4), "float32"), "y": TensorType((), "float32")}
    graph = Graph("g", ["x"], ["y"], [Node("Det", ["x"], ["y"], {}, "it")], types)
    with pytest.raises(UnsupportedOperatorError, match=r"Det \(it\)"):
        lower.lower(graph, LEVELS["avx2"], 1)
