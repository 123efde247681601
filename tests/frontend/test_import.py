"""Folding, names of outputs, and operators that are not supported."""

import numpy as np
import onnx
import pytest
from onnx import helper

from lowgemm.errors import ModelError, UnsupportedOperatorError
from lowgemm.frontend import load_onnx, to_onnx
from lowgemm.graph import Graph
from lowgemm.reference import OPERATORS, run_graph

import onnx_models
from onnx_models import node

IMAGE = ("float32", [1, 4, 6, 5])


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_a_computed_shape_is_folded():
    # reshape(x, [shape(x)[0], -1]), the way PyTorch writes it
    nodes = [
        node("Shape", "x", "shape"),
        node("Constant", "", "zero", value=onnx.numpy_helper.from_array(np.array(0))),
        node("Gather", "shape zero", "batch", axis=0),
        node("Unsqueeze", "batch axes", "first"),
        node("Concat", "first rest", "target", axis=0),
        node("Relu", "x", "r"),
        node("Reshape", "r target", "y"),
    ]
    constants = {"axes": np.array([0]), "rest": np.array([-1])}
    graph = load_onnx(onnx_models.model(nodes, {"x": IMAGE}, "y", constants))
    assert ops(graph) == ["Relu", "Reshape"]
    assert graph.nodes[1].attrs == {"shape": [1, 120]}
    assert graph.nodes[1].inputs == ["r"]
    assert graph.constants == {}


def test_part_of_a_shape_and_its_size():
    nodes = [
        node("Shape", "x", "shape", start=-2),
        node("Size", "x", "size"),
        node("Cast", "size", "size32", to=onnx.TensorProto.INT32),
        node("Identity", "shape", "y"),
        node("Neg", "size32", "z"),
    ]
    graph = load_onnx(onnx_models.model(nodes, {"x": IMAGE}, "y z"))
    x = np.zeros(IMAGE[1], np.float32)
    found = run_graph(graph, {"x": x})
    assert found["y"].tolist() == [6, 5]
    assert found["z"].tolist() == -120


def test_a_constant_condition_chooses_its_branch():
    def branch(op: str, name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        return helper.make_graph([node(op, "x", name)], op, [], [value])

    choose = node("If", "c", "y", then_branch=branch("Relu", "a"), else_branch=branch("Neg", "b"))
    for condition, expected in ((True, "Relu"), (False, "Neg")):
        proto = onnx_models.model([choose], {"x": IMAGE}, "y", {"c": np.array(condition)})
        graph = load_onnx(proto)
        assert ops(graph) == [expected]
        assert graph.outputs == ["y"]


def test_local_functions_are_inlined():
    body = [node("Relu", "a", "b"), node("Neg", "b", "c")]
    opsets = [helper.make_opsetid("", 21)]
    function = helper.make_function("mine", "Both", ["a"], ["c"], body, opsets)
    proto = onnx_models.model([node("Both", "x", "y", domain="mine")], {"x": IMAGE}, "y")
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.functions.append(function)
    assert ops(load_onnx(proto)) == ["Relu", "Neg"]


def test_outputs_keep_their_names_and_order():
    nodes = [
        node("Relu", "x", "r"),
        node("Identity", "r", "first"),
        node("Identity", "r", "second"),
        node("Identity", "x", "third"),
        node("Identity", "c", "fourth"),
    ]
    proto = onnx_models.model(nodes, {"x": IMAGE}, "fourth first second third", {"c": np.eye(2)})
    graph = load_onnx(proto)
    assert graph.outputs == ["fourth", "first", "second", "third"]
    x = np.random.default_rng(0).standard_normal(IMAGE[1]).astype(np.float32)
    expected = onnx_models.run_ort(proto, {"x": x})
    for result in (run_graph(graph, {"x": x}), onnx_models.run_ort(to_onnx(graph), {"x": x})):
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name], value)


def test_a_tensor_that_nothing_computes():
    proto = onnx_models.model([node("Relu", "ghost", "y")], {"x": IMAGE}, "y")
    with pytest.raises(ModelError, match=r"node 'the_Relu_y' \(Relu\) reads 'ghost'"):
        load_onnx(proto)
    proto = onnx_models.model([node("Relu", "x", "y")], {"x": IMAGE}, "z")
    with pytest.raises(ModelError, match="nothing computes the model's output 'z'"):
        load_onnx(proto)


def test_shapes_that_do_not_fit_are_named():
    proto = onnx_models.model([node("MatMul", "x w", "y")], {"x": IMAGE}, "y", {"w": np.eye(3)})
    with pytest.raises(ModelError, match=r"node 'the_MatMul_y' \(MatMul\)") as caught:
        load_onnx(proto)
    assert "\n" not in str(caught.value)


def test_all_unsupported_operators_are_named_with_their_nodes():
    nodes = [
        node("Frobnicate", "x", "a", domain="com.acme"),
        node("Frobnicate", "a", "b", domain="com.acme"),
        node("Relu", "b", "c"),
        node("Shape", "c", "s"),
        node("ConstantOfShape", "s", "z"),
        node("Whirl", "c", "d", domain="com.acme"),
        node("Det", "x", "e"),
        node("Sigmoid", "e", "f"),
        node("Pad", "x pads", "y"),
        node("Identity", "z", "g"),
    ]
    inputs = {"x": IMAGE, "pads": ("int64", [8])}
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_onnx(onnx_models.model(nodes, inputs, "y d f g"))
    message = str(caught.value)
    assert "\n" not in message
    assert "com.acme.Frobnicate in nodes 'the_Frobnicate_a', 'the_Frobnicate_b'" in message
    assert "com.acme.Whirl in node 'the_Whirl_d'" in message
    assert "Det in node 'the_Det_e'" in message
    assert "Pad (the padding must be known at compile time) in node 'the_Pad_y'" in message
    for supported in ("Relu", "Shape", "ConstantOfShape", "Sigmoid", "Identity"):
        assert supported not in message


def test_many_nodes_of_one_kind_are_counted():
    nodes = [node("Det", "x", f"y{i}") for i in range(9)]
    outputs = " ".join(f"y{i}" for i in range(9))
    with pytest.raises(UnsupportedOperatorError, match="'the_Det_y2' and 6 more"):
        load_onnx(onnx_models.model(nodes, {"x": ("float32", [2, 2])}, outputs))


def test_nodes_without_names_get_one():
    relu = node("Relu", "x", "t")
    again = node("Relu", "t", "y")
    relu.name = again.name = ""
    graph = load_onnx(onnx_models.model([relu, again], {"x": IMAGE}, "y"))
    assert [node.name for node in graph.nodes] == ["Relu:t", "Relu:y"]
    relu.name = again.name = "same"
    graph = load_onnx(onnx_models.model([relu, again], {"x": IMAGE}, "y"))
    assert [node.name for node in graph.nodes] == ["same", "same_1"]


def test_every_imported_operator_has_a_reference():
    from lowgemm.frontend._registry import REWRITERS

    rewritten = {
        *("Flatten", "Mean", "Sum", "Swish", "Upsample", "CastLike", "Dropout"),
        *("BatchNormalization", "MatMulInteger", "ConvInteger"),
    }
    ours = {op for op in REWRITERS if "." not in op and not op.startswith("QLinear")}
    assert ours - rewritten <= set(OPERATORS)


SPLIT = node("Split", "r sizes", "a b c", axis=1)
SIZES = {"sizes": np.array([3, 0, 1])}


def test_an_empty_part_goes_away():
    nodes = [
        node("Relu", "x", "r"),
        SPLIT,
        node("Neg", "b", "d"),
        node("Concat", "c d a", "y", axis=1),
    ]
    graph = load_onnx(onnx_models.model(nodes, {"x": IMAGE}, "y", SIZES))
    assert ops(graph) == ["Relu", "Split", "Concat"]
    assert graph.nodes[1].attrs == {"axis": 1, "split": [3, 1]}
    x = np.random.default_rng(0).standard_normal(IMAGE[1], np.float32)
    r = np.maximum(x, 0)
    assert np.array_equal(run_graph(graph, {"x": x})["y"], np.concatenate([r[:, 3:], r[:, :3]], 1))


def test_all_in_one_part_is_no_split():
    nodes = [node("Relu", "x", "r"), SPLIT, node("Neg", "a", "y")]
    sizes = {"sizes": np.array([4, 0, 0])}
    assert ops(load_onnx(onnx_models.model(nodes, {"x": IMAGE}, "y", sizes))) == ["Relu", "Neg"]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Relu", "x", "r"), SPLIT, node("Neg", "b", "y")],
        [node("Slice", "x from to", "s"), node("Relu", "s", "y")],
    ],
    ids=["split", "slice"],
)
def test_a_result_without_elements_is_refused(nodes: list[onnx.NodeProto]):
    constants = SIZES | {"from": np.array([0, 9]), "to": np.array([1, 99])}
    proto = onnx_models.model(nodes, {"x": IMAGE}, "y", constants)
    with pytest.raises(ModelError) as refused:
        load_onnx(proto)
    assert "\n" not in str(refused.value)
