"""The layers that are timed: their shapes, their ONNX models and the work that is counted."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import layers
from benchmarks.layers import Layer
from benchmarks.macs import count_macs
from lowgemm import frontend, reference

GEMM = Layer("test", True, 1, 24, 5, 1, 7)
CONV = Layer("test", False, 2, 8, 9, 6, 12, 4, (3, 5), stride=2, pad=2, dilation=2)


@pytest.mark.parametrize(("family", "least"), [("gemm", 50), ("conv", 30), ("depthwise", 100)])
def test_every_listed_layer_has_an_output(family: str, least: int) -> None:
    found = list(layers.family(family))
    assert len(found) >= least
    assert len({(layer.name, layer.shape) for layer in found}) == len(found)
    assert all(min(layer.out_shape) > 0 and layer.macs > 0 for layer in found)


def test_depthwise_means_one_channel_in_each_group() -> None:
    assert all(layer.groups == layer.in_channels for layer in layers.family("depthwise"))


def test_shapes_are_written_as_onnx_counts() -> None:
    assert GEMM.shape == "5x7x24"
    assert CONV.shape == "2x8x9x6 -> 12, 3x5 stride 2 pad 2 dilation 2 groups 4"


@pytest.mark.parametrize("layer", [GEMM, CONV], ids=["gemm", "conv"])
def test_the_model_computes_the_layer(layer: Layer) -> None:
    graph = frontend.load_onnx(layers.to_onnx(layer))
    found = reference.run_graph(graph, {"x": layer.data.x})["y"]
    assert found.shape == layer.out_shape
    # Codes spread over the range, and few are cut off at its ends.
    assert found.std() > 10
    assert np.mean((found > 0) & (found < 255)) > 0.9


@pytest.mark.parametrize("layer", [GEMM, CONV], ids=["gemm", "conv"])
def test_macs_are_counted_alike_from_the_layer_and_from_its_model(
    layer: Layer, tmp_path: Path
) -> None:
    onnx.save(layers.to_onnx(layer), tmp_path / "layer.onnx")
    assert count_macs(tmp_path / "layer.onnx") == layer.macs


def test_data_are_the_same_at_every_call() -> None:
    again = Layer(**{name: getattr(CONV, name) for name in CONV.__dataclass_fields__})
    assert np.array_equal(again.data.x, CONV.data.x)
    assert np.array_equal(again.data.weight, CONV.data.weight)
