"""Post-training quantization: a float model and samples to a model with 8-bit integers."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lowgemm.errors import CalibrationError
from lowgemm.frontend._samples import Batches as Batches
from lowgemm.frontend._samples import load_samples as load_samples
from lowgemm.frontend._samples import shapes_of_samples
from lowgemm.graph import Graph

if TYPE_CHECKING:
    import onnx

Method = Literal["minmax", "mse"]


def quantize(
    model: "str | Path | onnx.ModelProto",
    calibration: Mapping[str, np.ndarray],
    out_path: str | Path,
    *,
    shapes: dict[str, tuple[int, ...]] | None = None,
    method: Method = "minmax",
    reduce_range: bool = True,
) -> None:
    """Write the QDQ model that `quantize_graph` makes of a float ONNX model.

    The file appears at once, complete, or not at all. Arguments and errors are those of
    `quantize_graph`.
    """
    from lowgemm.frontend import to_onnx

    graph = quantize_graph(
        model, calibration, shapes=shapes, method=method, reduce_range=reduce_range
    )
    out = Path(out_path)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.stem}-", suffix=out.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(to_onnx(graph).SerializeToString())
        os.chmod(name, 0o644)
        os.replace(name, out)
    finally:
        Path(name).unlink(missing_ok=True)


def quantize_graph(
    model: "str | Path | onnx.ModelProto",
    calibration: Mapping[str, np.ndarray],
    *,
    shapes: dict[str, tuple[int, ...]] | None = None,
    method: Method = "minmax",
    reduce_range: bool = True,
) -> Graph:
    """Quantize a float model: uint8 activations, symmetric int8 weights for every output channel.

    Convolutions and matrix products become integer operators, and so does what follows them as long
    as it is an activation, an addition or product, a concatenation, a pool or a resize, so that
    integers flow from layer to layer.

    Args:
        model: a float ONNX model.
        calibration: input name -> samples along the first axis, each as the model takes it behind
            its batch axis. They also fix input sizes that the model leaves open.
        shapes: input name -> shape, where the samples do not say it.
        method: how ranges come from samples: "minmax", or "mse", which cuts off outliers.
        reduce_range: widen the scale of each output channel until the products of neighbouring weights sum to 16 bits,
            whatever the codes: by a fifth on average. Then engines that multiply with vpmaddubsw, as most do without
            VNNI, do not saturate, and lowgemm uses that instruction, too. False: all of int8 is used.

    Raises:
        CalibrationError: the samples do not fit the model, the model is quantized already, or ONNX
            Runtime (extra "quantize") is not installed.
        ModelError: the model cannot be read; see `lowgemm.frontend.load_onnx`.
    """
    from lowgemm.frontend._calibrate import measure_ranges
    from lowgemm.frontend._import import import_model
    from lowgemm.frontend._insert import Inserter, plan_regions
    from lowgemm.frontend._read import read_model
    from lowgemm.frontend._trim import trim_ranges

    if method not in ("minmax", "mse"):
        raise CalibrationError(f'calibration method {method!r} is neither "minmax" nor "mse"')
    proto = read_model(model)
    graph = import_model(proto, {**_shapes_from(proto, calibration), **(shapes or {})})
    if any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes):
        raise CalibrationError("the model is quantized already: compile it without calibration")
    batches = Batches(graph, calibration)
    plan = plan_regions(graph)
    if not plan.nodes:
        raise CalibrationError(
            "the model has no convolution or matrix product with constant weights to quantize"
        )
    ranges = trim_ranges(graph, plan, measure_ranges(graph, plan.tensors, batches, method))
    quantized = Inserter(graph, plan, ranges, reduce_range).build()
    quantized.validate()
    return quantized


def load_graph(
    model: "str | os.PathLike[str]",
    calibration: Mapping[str, np.ndarray] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The graph of a model to compile: quantized first where there is `calibration`, as it is without."""
    from lowgemm.frontend import load_onnx, to_onnx

    if calibration is None:
        return load_onnx(Path(model), shapes)
    # By way of the QDQ form: the same model as `lowgemm quantize` writes.
    return load_onnx(to_onnx(quantize_graph(Path(model), calibration, shapes=shapes)))


def _shapes_from(
    proto: "onnx.ModelProto", calibration: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Shapes that the samples give to inputs with open axes, where they contradict nothing."""
    ranks, fixed = {}, {}
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in weights or all(dim.dim_value > 0 for dim in dims):
            continue
        ranks[value.name] = len(dims)
        fixed[value.name] = [dim.dim_value for dim in dims]
    shapes = shapes_of_samples(ranks, calibration)
    return {
        name: tuple(
            known if known > 0 else given for known, given in zip(fixed[name], shape, strict=True)
        )
        for name, shape in shapes.items()
        if all(extent > 0 for extent in shape)
    }
