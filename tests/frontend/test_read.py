"""A model that cannot be read is refused with one line that names the file and the reason."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from lowgemm.errors import ModelError
from lowgemm.frontend import load_onnx

import onnx_models

WEIGHT = np.ones((64, 64), np.float32)


@pytest.fixture
def proto() -> onnx.ModelProto:
    nodes = [onnx_models.node("MatMul", "x w", "y")]
    return onnx_models.model(nodes, {"x": ("float32", [1, 64])}, "y", {"w": WEIGHT})


def refused(source: Path | onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        load_onnx(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_and_a_model_in_memory_are_the_same(tmp_path: Path, proto: onnx.ModelProto):
    onnx.save(proto, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), proto):
        assert [node.op for node in load_onnx(source).nodes] == ["Gemm"]


def test_missing_file(tmp_path: Path):
    assert refused(tmp_path / "no.onnx") == f"model file {tmp_path}/no.onnx does not exist"


def test_folder(tmp_path: Path):
    assert "is a folder" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model at all\n" * 10, b"\x00" * 100])
def test_something_else(tmp_path: Path, content: bytes):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    message = refused(path)
    assert str(path) in message
    assert "is empty" in message or "is not an ONNX model" in message


def test_truncated_anywhere(tmp_path: Path, proto: onnx.ModelProto):
    content = proto.SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(1, len(content), max(1, len(content) // 97)):
        path.write_bytes(content[:length])
        assert str(path) in refused(path)


def test_damaged_anywhere(tmp_path: Path, proto: onnx.ModelProto):
    """A damaged file is refused, or still is some model; nothing else is raised."""
    proto.graph.node.append(onnx_models.node("Clip", "y", "z"))
    proto.graph.node.append(onnx_models.node("LeakyRelu", "z", "a", alpha=0.1))
    proto.graph.output[0].name = "a"
    content = proto.SerializeToString()
    weight = content.find(WEIGHT.tobytes())
    path = tmp_path / "m.onnx"
    refused_files = 0
    for position in {*range(len(content))} - {*range(weight, weight + WEIGHT.nbytes)}:
        for flipped in (0x80, 0x20, 0x01):
            damaged = bytearray(content)
            damaged[position] ^= flipped
            path.write_bytes(damaged)
            try:
                load_onnx(path)
            except ModelError as error:
                refused_files += 1
                assert "\n" not in str(error)
    assert refused_files > 100


def test_attribute_without_a_type(proto: onnx.ModelProto):
    proto.graph.node.append(onnx_models.node("LeakyRelu", "y", "z", alpha=0.1))
    proto.graph.node[1].attribute[0].ClearField("type")
    assert refused(proto) == (
        "attribute 'alpha' of node 'the_LeakyRelu_z' has no value that lowgemm reads"
    )


def test_missing_weights_file(tmp_path: Path, proto: onnx.ModelProto):
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert load_onnx(path).constants["w"].shape == (64, 64)
    (tmp_path / "w.bin").unlink()
    assert "w.bin" in refused(path)


def test_damaged_weights(proto: onnx.ModelProto):
    proto.graph.initializer[0].raw_data = b"1234"
    assert refused(proto).startswith("the constant 'w' is damaged: ")


def test_old_and_future_opsets(proto: onnx.ModelProto):
    proto.opset_import[0].version = 6
    assert "opset 6" in refused(proto)
    proto.opset_import[0].version = 1000
    assert "upgrade onnx" in refused(proto)


def test_no_outputs(proto: onnx.ModelProto):
    del proto.graph.output[:]
    assert "no outputs" in refused(proto)
