"""The graph's lookups and changes, and what `validate` refuses."""

import numpy as np
import pytest

from lowgemm.errors import ModelError
from lowgemm.graph import Graph, Node, TensorType

VECTOR = TensorType((3,), "float32")


@pytest.fixture
def graph() -> Graph:
    """y = relu(x) + c; z = -relu(x)"""
    return Graph(
        "g",
        ["x"],
        ["y", "z"],
        [
            Node("Relu", ["x"], ["r"], {}, "relu"),
            Node("Add", ["r", "c"], ["y"], {}, "add"),
            Node("Neg", ["r"], ["z"], {}, "neg"),
        ],
        dict.fromkeys(("x", "r", "c", "y", "z"), VECTOR),
        {"c": np.ones(3, np.float32)},
    )


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


def test_lookups(graph: Graph):
    producers = graph.producers()
    assert producers["r"] is graph.nodes[0]
    assert producers["z"].name == "neg"
    assert not {"x", "c"} & set(producers)
    assert names(graph.uses()["r"]) == ["add", "neg"]
    assert graph.uses()["y"] == []


def test_a_reader_is_listed_once():
    square = Node("Mul", ["x", "x"], ["y"], {}, "square")
    graph = Graph("g", ["x"], ["y"], [square], dict.fromkeys("xy", VECTOR))
    assert graph.uses()["x"] == [square]


def test_types():
    type_ = TensorType((2, 3), "int8")
    assert (type_.rank, type_.size, type_.nbytes) == (2, 6, 6)
    assert TensorType((), "float32").nbytes == 4
    assert str(type_) == "int8[2, 3]"
    assert TensorType.of(np.zeros((2, 3), np.int8)) == type_


def test_fresh_names_and_additions(graph: Graph):
    assert graph.fresh_name("new") == "new"
    assert graph.fresh_name("c") == "c_1"
    assert graph.add_constant(np.zeros((), np.int64), "c") == "c_1"
    assert graph.types["c_1"] == TensorType((), "int64")
    assert graph.add_tensor(VECTOR, "c") == "c_2"


def test_rename_and_replace(graph: Graph):
    graph.rename("r", "s")
    graph.rename("c", "d")
    graph.rename("x", "in")
    graph.rename("y", "out")
    graph.validate()
    assert (graph.inputs, graph.outputs) == (["in"], ["out", "z"])
    graph.replace_uses("s", "in")
    assert [node.inputs[0] for node in graph.nodes] == ["in"] * 3


def test_prune_keeps_what_outputs_need(graph: Graph):
    graph.outputs = ["z"]
    graph.prune()
    assert names(graph.nodes) == ["relu", "neg"]
    assert set(graph.types) == {"x", "r", "z"}
    assert graph.constants == {}


def test_sort(graph: Graph):
    graph.nodes.reverse()
    with pytest.raises(ModelError, match="before it is computed"):
        graph.validate()
    graph.sort()
    assert names(graph.nodes) == ["relu", "neg", "add"]
    graph.validate()


def test_sort_refuses_a_cycle(graph: Graph):
    graph.nodes[0].inputs = ["y"]
    with pytest.raises(ModelError, match="cycle"):
        graph.sort()


def test_sort_of_a_long_chain():
    count = 5000
    nodes = [Node("Relu", [f"t{i}"], [f"t{i + 1}"], {}, str(i)) for i in range(count)]
    types = {f"t{i}": VECTOR for i in range(count + 1)}
    graph = Graph("g", ["t0"], [f"t{count}"], nodes[::-1], types)
    graph.sort()
    assert graph.nodes == nodes


def test_a_part(graph: Graph):
    part = graph.subgraph([graph.nodes[1], graph.nodes[2]])
    part.validate()
    assert (part.inputs, part.outputs, set(part.constants)) == (["r"], ["y", "z"], {"c"})
    inner = graph.subgraph([graph.nodes[0]])
    assert (inner.inputs, inner.outputs) == (["x"], ["r"])


def test_a_copy_is_independent(graph: Graph):
    copy = graph.copy()
    copy.nodes[0].inputs[0] = "c"
    copy.nodes[0].attrs["a"] = 1
    copy.rename("z", "w")
    assert graph.nodes[0].inputs == ["x"]
    assert graph.nodes[0].attrs == {}
    graph.validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.types.pop("x"), "tensor 'x' has no type"),
        (lambda g: g.types.pop("r"), "tensor 'r' of node 'relu' has no type"),
        (lambda g: g.constants.update(c=np.ones(2, np.float32)), r"constant 'c' is float32\[2\]"),
        (lambda g: g.nodes.append(g.nodes[0]), "computes 'r' a second time"),
        (lambda g: g.nodes.pop(), "output 'z' is never computed"),
    ],
)
def test_validate_refuses(graph: Graph, change, message: str):
    graph.validate()
    change(graph)
    with pytest.raises(ModelError, match=message):
        graph.validate()
