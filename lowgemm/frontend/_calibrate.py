"""Measuring the ranges of a float graph's tensors over calibration samples."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from lowgemm.errors import CalibrationError
from lowgemm.frontend._export import export_model
from lowgemm.frontend._samples import Batches
from lowgemm.graph import Graph

_BINS = 2048
# How much of the range "mse" may cut off: down to this share of the extremes.
_SMALLEST_SHARE = 0.3
_SHARES = 71


@dataclass(frozen=True)
class Range:
    """The real numbers that a tensor's integers stand for."""

    low: float
    high: float


def measure_ranges(
    graph: Graph, tensors: Iterable[str], batches: Batches, method: str
) -> dict[str, Range]:
    """The range of every one of `tensors` over all samples.

    "minmax" takes the extremes. "mse" cuts outliers off where that makes the expected square of the
    quantization error smaller; it needs a second pass over the samples.

    Raises:
        CalibrationError: onnxruntime is missing, or a tensor becomes NaN or infinite.
    """
    tensors = [tensor for tensor in dict.fromkeys(tensors) if tensor not in graph.inputs]
    runner = _Runner(graph, tensors)
    low = dict.fromkeys((*tensors, *graph.inputs), np.inf)
    high = dict.fromkeys((*tensors, *graph.inputs), -np.inf)
    for index, inputs in enumerate(batches):
        for tensor, value in runner.run(inputs):
            least, most = float(value.min(initial=np.inf)), float(value.max(initial=-np.inf))
            if not (np.isfinite(least) and np.isfinite(most)) and value.size:
                raise CalibrationError(
                    f"tensor {tensor!r} of the float model is not finite for sample {index}"
                )
            low[tensor], high[tensor] = min(low[tensor], least), max(high[tensor], most)
    if method == "minmax":
        return {tensor: Range(low[tensor], high[tensor]) for tensor in low}
    counts = {tensor: np.zeros(_BINS) for tensor in low}
    for inputs in batches:
        for tensor, value in runner.run(inputs):
            span = (low[tensor], max(high[tensor], np.nextafter(low[tensor], np.inf)))
            counts[tensor] += np.histogram(value, _BINS, span)[0]
    return {tensor: _least_error(low[tensor], high[tensor], counts[tensor]) for tensor in low}


class _Runner:
    """The float graph in ONNX Runtime, with tensors in between as outputs."""

    def __init__(self, graph: Graph, tensors: list[str]) -> None:
        ort = import_onnxruntime()
        self.inputs, self.tensors = graph.inputs, tensors
        model = export_model(graph)
        present = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(
                tensor, onnx.TensorProto.FLOAT, graph.types[tensor].shape
            )
            for tensor in tensors
            if tensor not in present
        )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: dict[str, np.ndarray]) -> Iterable[tuple[str, np.ndarray]]:
        yield from ((name, value) for name, value in inputs.items() if value.dtype.kind == "f")
        if self.tensors:
            yield from zip(self.tensors, self.session.run(self.tensors, inputs), strict=True)


def import_onnxruntime() -> Any:
    """The onnxruntime package.

    Raises:
        CalibrationError: it is not installed.
    """
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CalibrationError(
            'calibration needs ONNX Runtime: pip install "lowgemm[quantize]"'
        ) from None
    return onnxruntime


def _least_error(low: float, high: float, counts: np.ndarray) -> Range:
    """The range whose 8-bit rounding and clipping errors have the least sum of squares.

    Both ends shrink by the same share; an end at 0 stays.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    edges = np.linspace(low, high, _BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    best, least = Range(low, high), np.inf
    for share in np.linspace(1, _SMALLEST_SHARE, _SHARES):
        bottom, top = low * share, high * share
        step = (top - bottom) / 255
        clipped = np.maximum(bottom - centres, 0) + np.maximum(centres - top, 0)
        # Inside, the error is spread evenly over one step: step^2 / 12.
        squares = np.where(clipped > 0, np.square(clipped), step * step / 12)
        error = float(counts @ squares)
        if error < least:
            best, least = Range(bottom, top), error
    return best
