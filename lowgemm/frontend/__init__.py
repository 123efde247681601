"""From a model file to a `Graph` in one canonical form, and back to ONNX."""

from pathlib import Path
from typing import TYPE_CHECKING

from lowgemm.graph import Graph

if TYPE_CHECKING:  # onnx is only loaded when a model is: `import lowgemm` stays light
    import onnx


def load_onnx(
    model: "str | Path | onnx.ModelProto", shapes: dict[str, tuple[int, ...]] | None = None
) -> Graph:
    """Read an ONNX model into the canonical form.

    Every operator has the attributes and inputs of opset 21, except that whatever must be known at
    compile time (bounds, axes, shapes, pads, ...) is an attribute with Python values, and that
    windows, axes and zero points are spelled out. Constants are folded, shapes are numbers, and
    integers occur as DequantizeLinear -> operator -> QuantizeLinear only.

    Args:
        model: a file, or a model that is loaded already.
        shapes: input name -> its shape, for inputs whose shape the model leaves open. An open
            leading axis (the batch) is 1 where nothing is said.

    Raises:
        ModelError: the file is missing, damaged or not ONNX; or a shape is missing or contradicts
            the model.
        UnsupportedOperatorError: names every operator that is not supported, with its nodes.
    """
    from lowgemm.frontend._import import import_model
    from lowgemm.frontend._read import read_model

    return import_model(read_model(model), shapes or {})


def to_onnx(graph: Graph) -> "onnx.ModelProto":
    """Write a graph, or a part of one, as a model that any ONNX engine runs."""
    from lowgemm.frontend._export import export_model

    return export_model(graph)
