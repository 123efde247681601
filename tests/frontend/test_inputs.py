"""Input shapes: from the model, from the user, a batch of one; and what is said where they miss."""

import onnx
import pytest

from lowgemm.errors import ModelError
from lowgemm.frontend import load_onnx

import onnx_models

Shape = list[int | str | None]


def shapes_of(inputs: dict[str, Shape], given: dict[str, tuple[int, ...]] | None = None):
    nodes = [onnx_models.node("Relu", name, f"{name}_out") for name in inputs]
    outputs = " ".join(f"{name}_out" for name in inputs)
    proto = onnx_models.model(nodes, {n: ("float32", s) for n, s in inputs.items()}, outputs)
    graph = load_onnx(proto, given)
    assert all(graph.types[f"{name}_out"] == graph.types[name] for name in inputs)
    return {name: graph.types[name].shape for name in inputs}


def test_an_open_batch_is_one():
    assert shapes_of({"x": ["n", 3]}) == {"x": (1, 3)}
    assert shapes_of({"x": [None, 3]}) == {"x": (1, 3)}
    assert shapes_of({"x": [-1, 3]}) == {"x": (1, 3)}
    assert shapes_of({"x": ["n", 3]}, {"x": (4, 3)}) == {"x": (4, 3)}


def test_one_name_is_one_size():
    given = {"x": (2, 5)}
    assert shapes_of({"x": ["n", "h"], "y": ["n", "h"]}, given) == {"x": (2, 5), "y": (2, 5)}


def test_a_question_mark_is_no_name():
    assert shapes_of({"x": ["?", 3, "?", "?"]}, {"x": (1, 3, 4, 5)}) == {"x": (1, 3, 4, 5)}


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ({"x": [1, 3, "h", "w"]}, {}, "axis 2 (h) of input 'x' is open: give its shape, "),
        ({"x": [1, 3, None]}, {}, "axis 2 of input 'x' is open"),
        ({"x": [1, 3]}, {"z": (1, 3)}, "a shape is given for 'z'; the inputs are 'x'"),
        ({"x": [1, 3]}, {"x": (1, 3, 1)}, "input 'x' has 2 axes, and shape 1x3x1 has 3"),
        ({"x": [1, 3]}, {"x": (1, 4)}, "input 'x' has 3 elements along axis 1, and shape 1x4 "),
        ({"x": ["n", 3]}, {"x": (0, 3)}, "every size is at least 1"),
        ({"x": ["n"], "y": ["n"]}, {"x": (2,), "y": (3,)}, "axis 'n' is 2 in one input and 3"),
    ],
)
def test_what_is_missing_or_contradicts(inputs, given, message: str):
    with pytest.raises(ModelError) as caught:
        shapes_of(inputs, given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hint_names_the_flag():
    with pytest.raises(ModelError, match="--shape x=1x3xNxN with numbers for N"):
        shapes_of({"x": [1, 3, "h", "w"]})


def test_no_shape_at_all():
    proto = onnx_models.model([onnx_models.node("Relu", "x", "y")], {"x": ("float32", [1])}, "y")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="input 'x' has no shape"):
        load_onnx(proto)
    assert load_onnx(proto, {"x": (2, 5)}).types["y"].shape == (2, 5)


def test_an_input_that_is_no_tensor():
    proto = onnx_models.model(
        [onnx_models.node("SequenceAt", "x i", "y")], {"i": ("int64", [])}, "y"
    )
    element = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1])
    sequence = onnx.helper.make_sequence_type_proto(element)
    proto.graph.input.append(onnx.helper.make_value_info("x", sequence))
    with pytest.raises(ModelError, match="input 'x' is not a tensor"):
        load_onnx(proto)
