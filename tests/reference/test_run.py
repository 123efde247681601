"""Running a graph: what is fetched, and what is refused."""

import numpy as np
import pytest

from lowgemm.errors import InputError, UnsupportedOperatorError
from lowgemm.graph import Graph, Node, TensorType
from lowgemm.reference import evaluate, run_graph

VECTOR = TensorType((3,), "float32")


@pytest.fixture
def graph() -> Graph:
    return Graph(
        "g",
        ["x"],
        ["y"],
        [Node("Relu", ["x"], ["t"], {}, "relu"), Node("Neg", ["t"], ["y"], {}, "neg")],
        dict.fromkeys("xty", VECTOR),
    )


def test_outputs_by_default_and_any_tensor_on_request(graph: Graph):
    x = np.array([-1, 0, 2], np.float32)
    assert run_graph(graph, {"x": x})["y"].tolist() == [0, 0, -2]
    assert run_graph(graph, {"x": x}, ["t", "x"])["t"].tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"z": np.zeros(3, np.float32)}, "'z' is no input; the inputs are x"),
        ({"x": np.zeros(4, np.float32)}, r"input 'x' is float32\[4\], expected float32\[3\]"),
        ({"x": np.zeros(3)}, r"input 'x' is float64\[3\], expected float32\[3\]"),
    ],
)
def test_wrong_inputs_are_refused(graph: Graph, inputs, message: str):
    with pytest.raises(InputError, match=message):
        run_graph(graph, inputs)


def test_an_unknown_operator_is_named():
    with pytest.raises(UnsupportedOperatorError, match=r"no operator Frobnicate \('f'\)"):
        evaluate(Node("Frobnicate", ["x"], ["y"], {}, "f"), [np.zeros(1)])
