"""The layers of models: read from graphs, or from what is published, each once."""

import numpy as np

from benchmarks import layers, model_layers
from benchmarks.layers import FAMILIES, Layer
from lowgemm import frontend
from lowgemm.bench.macs import count_macs

import onnx_models
from onnx_models import node


def test_layers_are_read_from_a_graph() -> None:
    constants = {
        "w": np.ones((8, 2, 3, 3), np.float32),
        "t": np.ones((8, 4, 2, 2), np.float32),
        "m": np.ones((4, 5), np.float32),
    }
    nodes = [
        node("Conv", "x w", "c", strides=[2, 1], pads=[0, 1, 1, 2], group=2),
        node("ConvTranspose", "c t", "d", strides=[2, 2]),
        node("Transpose", "d", "e", perm=[0, 2, 3, 1]),
        node("MatMul", "e m", "y"),
    ]
    x = np.zeros((1, 4, 8, 6), np.float32)
    graph = frontend.load_onnx(onnx_models.model(nodes, {"x": x}, "y", constants))
    found = list(model_layers.layers_of("net", graph))
    assert [layer.shape for layer in found] == [
        "1x4x8x6 -> 8, 3x3 stride 2x1 pad 0x1:1x2 groups 2",
        "1x8x4x7 -> 4, 2x2 stride 2 pad 0 transposed",
        "112x5x4",
    ]
    assert sum(layer.macs for layer in found) == count_macs(graph)


def test_published_models_have_as_many_products_as_published() -> None:
    """300 million of MobileNetV2; of a layer of BERT-base 12 x 768 x 768 a token."""
    assert round(sum(layer.macs for layer in model_layers.mobilenet_v2()) / 1e6) in (300, 301)
    query, up, down, _ = model_layers.bert_base()
    assert 4 * query.macs + up.macs + down.macs == 128 * 12 * 768 * 768


def test_layers_go_to_their_families_once() -> None:
    texts = [
        "1x8x9x9 -> 8, 3x3 stride 1 pad 1 groups 8",
        "1x8x9x9 -> 8, 1x1 stride 1 pad 0",
        "3x5x7",
    ]
    known = next(layers.read("gemm.txt")).shape
    found = [Layer.parse(name, text) for name in ("a", "b") for text in (*texts, known)]
    lists = model_layers.lists(found)
    bodies = {name: text.splitlines()[1:] for name, text in lists.items()}
    assert bodies == {
        "depthwise": ["[a]", texts[0]],
        "conv": ["[a]", texts[1]],
        "gemm": ["[a]", texts[2]],
    }


def test_the_lists_that_are_kept_repeat_nothing() -> None:
    ours = [layer.shape for name in FAMILIES for layer in layers.read(f"{name}_models.txt")]
    fbgemms = {layer.shape for name in FAMILIES for layer in layers.read(f"{name}.txt")}
    assert len(set(ours)) == len(ours) and not fbgemms & {*ours}
