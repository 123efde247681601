"""The layers that are timed: their shapes, their data, their ONNX models and the work that is counted."""

import numpy as np
import pytest

from benchmarks import kernels, layers
from benchmarks.layer_model import to_onnx
from benchmarks.layers import Layer, bound_pairs
from lowgemm import frontend, reference
from lowgemm.bench.macs import count_bytes, count_macs

GEMM = Layer.parse("test", "5x7x24")
CONV = Layer.parse("test", "2x8x9x6 -> 12, 3x5 stride 2 pad 2 dilation 2 groups 4")
TRANSPOSED = Layer.parse(
    "test", "1x8x5x4 -> 12, 3x2 stride 2 pad 1 groups 2 output_pad 1x0 transposed"
)
SHORT = Layer.parse("test", "1x6x9 -> 4, 3 stride 2 pad 1")
DEEP = Layer.parse("test", "1x4x3x5x5 -> 4, 3x3x3 stride 1x2x2 pad 1 groups 4")
ALL = [GEMM, CONV, TRANSPOSED, SHORT, DEEP]
LISTED = [layer for name in layers.FAMILIES for layer in layers.family(name)]


@pytest.mark.parametrize(("family", "least"), [("gemm", 57), ("conv", 83), ("depthwise", 153)])
def test_every_listed_layer_has_an_output(family: str, least: int) -> None:
    found = list(layers.family(family))
    assert len(found) >= least
    assert len({(layer.name, layer.shape) for layer in found}) == len(found)
    assert all(min(layer.out_shape) > 0 and layer.macs > 0 for layer in found)


def test_a_layer_is_what_its_shape_says() -> None:
    for layer in (*ALL, *LISTED):
        assert Layer.parse(layer.name, layer.shape) == layer


@pytest.mark.parametrize(
    "text", ["5x7", "1x8x9 -> 4", "1x8x9 -> 4, 3x3", "1x8x9 -> 4, 3 spin 2", "1x8x9x9 -> 4, 3x3 stride"]
)  # fmt: skip
def test_what_is_no_layer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no layer"):
        Layer.parse("test", text)


def test_depthwise_means_one_channel_in_each_group() -> None:
    assert all(layer.groups == layer.in_channels for layer in layers.family("depthwise"))


def test_shapes_are_written_as_onnx_counts() -> None:
    assert (GEMM.batch, GEMM.out_channels, GEMM.in_channels) == (5, 7, 24)
    assert CONV.out_shape == (2, 12, 5, 1)
    assert TRANSPOSED.out_shape == (1, 12, 10, 6)
    uneven = Layer.parse("test", "1x8x6x6 -> 4, 3x3 stride 2 pad 0x1:1x2")
    assert uneven.pads == (0, 1, 1, 2) and uneven.out_sizes == (3, 4)
    assert uneven.shape == "1x8x6x6 -> 4, 3x3 stride 2 pad 0x1:1x2"


@pytest.mark.parametrize("layer", [GEMM, CONV], ids=["gemm", "conv"])
def test_the_model_computes_the_layer(layer: Layer) -> None:
    graph = frontend.load_onnx(to_onnx(layer))
    found = reference.run_graph(graph, {"x": layer.data.x})["y"]
    assert found.shape == layer.out_shape
    assert kernels.right(found, kernels.expected_codes(layer))


@pytest.mark.parametrize("layer", ALL, ids=["gemm", "conv", "transposed", "short", "deep"])
def test_codes_spread_over_the_range(layer: Layer) -> None:
    codes = kernels.expected_codes(layer)
    assert codes.shape == layer.out_shape
    assert codes.std() > 10
    assert np.mean((codes > 0) & (codes < 255)) > 0.9


@pytest.mark.parametrize("layer", [GEMM, CONV], ids=["gemm", "conv"])
def test_macs_and_bytes_are_counted_alike_from_the_layer_and_from_its_model(layer: Layer) -> None:
    graph = frontend.load_onnx(to_onnx(layer))
    assert count_macs(graph) == layer.macs
    assert count_bytes(graph) == layer.moved


def test_data_are_the_same_at_every_call() -> None:
    again = Layer.parse(CONV.name, CONV.shape)
    assert np.array_equal(again.data.x, CONV.data.x)
    assert np.array_equal(again.data.weight, CONV.data.weight)


def pair_sums(weight: np.ndarray) -> list[np.ndarray]:
    """Sums of neighbours with channels last and with channels first, of weights of the same sign alone."""
    found = []
    for order in (np.moveaxis(weight, 1, -1), weight):
        flat = order.reshape(len(weight), -1).astype(int)
        for part in (np.maximum(flat, 0), np.minimum(flat, 0)):
            found.append(part[:, :-1] + part[:, 1:])
    return found


def test_no_pair_of_products_leaves_16_bits() -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (8, 5, 3, 3)).astype(np.int8)
    assert any(np.abs(sums).max() > 128 for sums in pair_sums(weight))
    bounded = bound_pairs(weight)
    assert all(np.abs(sums).max() <= 128 for sums in pair_sums(bounded))
    assert (np.abs(bounded.astype(int)) <= np.abs(weight.astype(int))).all()
    assert np.array_equal(bound_pairs(bounded), bounded), "what fits is left alone"
    assert np.iinfo(np.int16).max >= 255 * 128


def test_the_data_of_layers_do_not_saturate() -> None:
    for layer in ALL[:3]:
        assert all(np.abs(sums).max(initial=0) <= 128 for sums in pair_sums(layer.data.weight))


def test_a_saturating_engine_is_right_on_gemm_data() -> None:
    layer = Layer.parse("test", "8x16x64")
    data = layer.data
    saturated = reference.gemm_maddubs(data.x, np.ascontiguousarray(data.weight.T))
    assert np.array_equal(saturated, reference.gemm_i32(data.x, data.weight.T))
    spoilt = np.full_like(data.weight.T, 127)
    assert not np.array_equal(
        reference.gemm_maddubs(data.x, spoilt), reference.gemm_i32(data.x, spoilt)
    )


def test_a_wrong_code_is_not_right() -> None:
    expected = np.arange(250, dtype=np.uint8).repeat(10)
    tie = expected.copy()
    tie[3] += 1
    assert kernels.right(expected, expected) and kernels.right(tie, expected)
    tie[3] += 1
    assert not kernels.right(tie, expected), "two steps"
    assert not kernels.right(expected + np.uint8(1), expected), "everywhere"
