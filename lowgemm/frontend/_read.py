"""Reading a model file: whatever is wrong with it becomes one line."""

from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError

from lowgemm.errors import ModelError

# Before opset 7, binary operators broadcast by attributes; no exporter of the last years writes it.
_OLDEST_OPSET = 7


def read_model(source: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    """Load `source` with its external data, local functions inlined, or say why that fails.

    Raises:
        ModelError: the file is missing, damaged, not ONNX, or older than opset 7.
    """
    if isinstance(source, onnx.ModelProto):
        name, model = "the model", source
    else:
        name, model = str(source), _parse(Path(source))
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{name} is not an ONNX model, or is cut short: it has no graph")
    if not model.graph.output:
        raise ModelError(f"{name} computes nothing: its graph has no outputs")
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if opset < _OLDEST_OPSET:
        raise ModelError(
            f"{name} uses ONNX opset {opset}, and lowgemm reads {_OLDEST_OPSET} and newer: "
            "convert it with onnx.version_converter"
        )
    if opset > newest:
        raise ModelError(
            f"{name} uses ONNX opset {opset}, and the installed onnx package knows opsets "
            f"up to {newest}: upgrade onnx"
        )
    if not _has_text(model.graph):
        raise ModelError(f"{name} is damaged: names in it are not text")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model uses (0 if it uses none)."""
    standard = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return max(standard, default=0)


def _has_text(graph: onnx.GraphProto) -> bool:
    """Whether the names in a graph are str: protobuf hands bytes over that are not UTF-8."""
    values = (*graph.input, *graph.output, *graph.initializer)
    nodes = (
        text
        for node in graph.node
        for text in (node.op_type, node.domain, node.name, *node.input, *node.output)
    )
    return all(isinstance(text, str) for text in (*nodes, *(value.name for value in values)))


def _parse(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise ModelError(f"model file {path} does not exist")
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name the ONNX file in it")
    try:
        if path.stat().st_size == 0:
            raise ModelError(f"{path} is empty")
        return onnx.load(str(path))
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX model, or is cut short") from None
    except (OSError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be read: {reason}") from None
