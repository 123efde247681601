"""Post-training quantization: what becomes integers, how well, and which samples are refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from lowgemm.errors import CalibrationError
from lowgemm.frontend import load_onnx, to_onnx
from lowgemm.frontend.quantize import load_samples, quantize, quantize_graph
from lowgemm.graph import Graph
from lowgemm.reference import run_graph

import onnx_models
from onnx_models import node

RNG = np.random.default_rng(17)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


SAMPLES = normal(8, 3, 10, 9)
SHARE_STEP = 0.01  # "mse" tries ranges in steps of this share
PAIR = ("QuantizeLinear", "DequantizeLinear")


def float_ops(graph: Graph) -> list[str]:
    """Operators with an input that is not dequantized (constants aside) or a result not quantized."""
    producers, uses = graph.producers(), graph.uses()
    outside = []
    for n in graph.nodes:
        if n.op in PAIR:
            continue
        inputs = [t for t in n.inputs if t not in graph.constants]
        closed_in = all(t in producers and producers[t].op == PAIR[1] for t in inputs)
        readers = [user.op for t in n.outputs for user in uses[t]]
        closed_out = bool(readers) and set(readers) == {PAIR[0]}
        if not (closed_in and closed_out):
            outside.append(n.op)
    return outside


def quantized(nodes: list[onnx.NodeProto], constants: dict[str, Any], **options: Any) -> Graph:
    """Quantize a model x -> y, and check that it still computes about the same."""
    proto = onnx_models.model(nodes, {"x": ("float32", ["n", *SAMPLES.shape[1:]])}, "y", constants)
    graph = quantize_graph(proto, {"x": SAMPLES}, **options)
    x = {"x": SAMPLES[:1]}
    expected, found = onnx_models.run_ort(proto, x)["y"], run_graph(graph, x)["y"]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 0.05, f"relative error {error}"
    written = onnx_models.run_ort(to_onnx(graph), x)["y"]
    assert np.abs(written - found).max() <= np.abs(found).max() / 100
    return graph


def conv(x: str, y: str, weight: str = "w", **attrs: Any) -> onnx.NodeProto:
    return node("Conv", f"{x} {weight} b", y, pads=[1, 1, 1, 1], **attrs)


CONV = {"w": normal(6, 3, 3, 3), "b": normal(6), "v": normal(6, 6, 3, 3)}


def test_layers_connect_through_integers():
    nodes = [
        conv("x", "t0"), node("HardSwish", "t0", "t1"),
        conv("t1", "t2", "v"), node("Relu", "t2", "t3"),
        node("GlobalAveragePool", "t3", "t4"), node("Sigmoid", "t4", "t5"),
        node("Mul", "t3 t5", "t6"), node("Add", "t6 t1", "t7"),
        node("MaxPool", "t7", "t8", kernel_shape=[2, 2]),
        node("Resize", "t8 - scales", "t9"), node("Concat", "t9 t9", "t10", axis=1),
        node("Flatten", "t10", "t11"), node("Gemm", "t11 g", "y"),
    ]  # fmt: skip
    constants = {
        **CONV, "scales": np.array([1, 1, 2, 2], np.float32), "g": normal(12 * 18 * 16, 5),
    }  # fmt: skip
    graph = quantized(nodes, constants)
    assert float_ops(graph) == []
    # The clamp of the quantization behind does the Relu.
    assert "Relu" not in [n.op for n in graph.nodes]


def test_an_average_pool_loads_in_onnx_runtime():
    pool = node("AveragePool", "c", "y", kernel_shape=[2, 2])
    graph = quantized([conv("x", "c", kernel_shape=[3, 3]), pool], CONV)
    # With its optimizations, which turn the pool into an operator of its own.
    onnxruntime.InferenceSession(to_onnx(graph).SerializeToString())


def test_weights_and_activations_have_the_promised_types():
    graph = quantized([conv("x", "t"), node("Clip", "t low high", "y")], {
        **CONV, "low": np.float32(0), "high": np.float32(2),
    })  # fmt: skip
    (layer,) = [n for n in graph.nodes if n.op not in PAIR]
    producers = graph.producers()
    x, w, b = (producers[t] for t in layer.inputs)
    scales = graph.constants[w.inputs[1]]
    assert graph.types[x.inputs[0]].dtype == "uint8"
    assert graph.types[w.inputs[0]].dtype == "int8"
    assert graph.types[b.inputs[0]].dtype == "int32"
    assert (w.attrs, b.attrs) == ({"axis": 0}, {"axis": 0})
    assert scales.shape == (6,)
    assert np.abs(graph.constants[w.inputs[0]]).reshape(6, -1).max(axis=1).min() > 64
    assert not graph.constants[w.inputs[2]].any()
    np.testing.assert_array_equal(
        graph.constants[b.inputs[1]], scales * graph.constants[x.inputs[1]]
    )


def int8_weights(graph: Graph) -> list[np.ndarray]:
    return [v for v in graph.constants.values() if v.dtype == np.int8 and v.ndim > 1]


def test_the_full_range_is_used_on_request():
    (weight,) = int8_weights(quantized([conv("x", "y")], CONV, reduce_range=False))
    assert np.abs(weight).reshape(6, -1).max(axis=1).tolist() == [127] * 6


def test_a_reduced_range_is_no_smaller_than_sums_in_16_bits_need():
    nodes = [
        conv("x", "t0"), node("Conv", "t0 grouped", "t1", group=2, pads=[1, 1, 1, 1]),
        node("Conv", "t1 v", "t2", dilations=[2, 2], pads=[2, 2, 2, 2]),
        node("Flatten", "t2", "t3"), node("Gemm", "t3 g", "y"),
    ]  # fmt: skip
    constants = {**CONV, "grouped": normal(6, 3, 3, 3), "g": normal(540, 5)}
    reduced = int8_weights(quantized(nodes, constants))
    full = int8_weights(quantized(nodes, constants, reduce_range=False))
    # Of the first layer and the product, a row of the window is one run; else each point is.
    for weight, row in zip(reduced, (9, 3, 6, 540), strict=True):
        runs = (weight.T if weight.ndim == 2 else np.moveaxis(weight, 1, -1)).reshape(-1, row)
        length = -(-row // 2) * 2
        pairs = np.pad(runs, [(0, 0), (0, length - row)]).astype(int).reshape(len(runs), -1, 2)
        largest = np.abs(np.stack([pairs.clip(min=0), pairs.clip(max=0)]).sum(-1)).max((0, 2))
        by_channel = largest.reshape(weight.shape[0] if weight.ndim > 2 else len(runs), -1).max(1)
        peaks = np.abs(runs).reshape(len(by_channel), -1).max(1)
        assert by_channel.max() <= 128
        # No channel could have a scale a hundredth smaller.
        assert np.all((by_channel >= 126) | (peaks == 127))
    assert any(np.any(a != b) for a, b in zip(reduced, full, strict=True))


def real_range(graph: Graph, tensor: str) -> tuple[float, float]:
    """What the first and the last code of a quantized tensor stand for."""
    (pair,) = (n for n in graph.nodes if n.op == PAIR[0] and n.inputs[0] == tensor)
    scale, zero = (float(graph.constants[name]) for name in pair.inputs[1:])
    return scale * (0 - zero), scale * (255 - zero)


def test_codes_are_not_spent_on_what_an_activation_makes_nothing_of():
    """Below -3 a hard-swish is 0; a hard sigmoid is flat on both sides. The layers' own results reach -20 and 20."""
    nodes = [
        conv("x", "t0"), node("HardSwish", "t0", "t1"),
        conv("t1", "t2", "v"), node("HardSigmoid", "t2", "t3", alpha=1 / 6, beta=0.5),
        conv("t3", "y", "v"),
    ]  # fmt: skip
    graph = quantized(nodes, CONV)
    low, high = real_range(graph, "t0")
    assert -3.1 < low < -2.9
    assert high > 10
    low, high = real_range(graph, "t2")
    assert -3.1 < low < -2.9
    assert 2.9 < high < 3.1


def test_codes_are_spent_on_what_others_read():
    nodes = [conv("x", "t0"), node("HardSwish", "t0", "t1"), node("Add", "t0 t1", "y")]
    assert real_range(quantized(nodes, CONV), "t0")[0] < -10


def test_a_chain_of_functions_is_trimmed_as_one():
    """What counts is the step of the codes behind the last one: here the first one's 0 is a large number."""
    nodes = [
        conv("x", "t0"), node("HardSwish", "t0", "t1"), node("Mul", "t1 half", "t2"),
        node("Add", "t2 far", "t3"), conv("t3", "y", "v"),
    ]  # fmt: skip
    constants = CONV | {"half": np.float32(0.5), "far": np.float32(40.0)}
    low, high = real_range(quantized(nodes, constants), "t0")
    assert -3 < low < -2.5
    assert high > 10


def test_copies_keep_their_parameters():
    nodes = [
        conv("x", "t0"), node("MaxPool", "t0", "t1", kernel_shape=[2, 2]),
        node("Transpose", "t1", "t2", perm=[0, 2, 3, 1]), node("Reshape", "t2 s", "y"),
    ]  # fmt: skip
    graph = quantized(nodes, {**CONV, "s": np.array([1, -1])})
    behind = {n.inputs[1:][0] for n in graph.nodes if n.op == PAIR[0]}
    assert len(behind) == 2  # the input's, and one for everything behind the convolution


def test_input_rearrangements_are_done_with_integers():
    nodes = [
        node("Transpose", "x", "t", perm=[0, 1, 3, 2]), conv("t", "y"),
    ]  # fmt: skip
    assert float_ops(quantized(nodes, CONV)) == []


def test_chains_of_single_elements_are_rounded_once():
    nodes = [
        conv("x", "t0"), node("HardSwish", "t0", "t1"), node("Mul", "t1 f", "t2"),
        node("Add", "t2 f", "t3"), conv("t3", "y", "v"),
    ]  # fmt: skip
    graph = quantized(nodes, {**CONV, "f": np.float32(0.7)})
    assert [n.op for n in graph.nodes if n.op == PAIR[0]] == [PAIR[0]] * 4


def test_float_only_parts_stay_float():
    nodes = [
        conv("x", "t0"), node("Flatten", "t0", "t1"), node("Gemm", "t1 g", "t2"),
        node("Softmax", "t2", "t3"), node("Mul", "t3 f", "y"),
    ]  # fmt: skip
    graph = quantized(nodes, {**CONV, "g": normal(540, 7), "f": normal(7)})
    assert float_ops(graph) == ["Softmax", "Mul"]


def test_batch_normalization_and_padding_are_gone_before():
    norm = {"s": normal(6) + 3, "h": normal(6), "m": normal(6), "u": abs(normal(6)) + 0.5}
    nodes = [
        node("Pad", "x p", "t0"), node("Conv", "t0 w", "t1"),
        node("BatchNormalization", "t1 s h m u", "t2"), node("LeakyRelu", "t2", "y"),
    ]  # fmt: skip
    constants = {**norm, "w": CONV["w"], "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    graph = quantized(nodes, constants)
    assert [n.op for n in graph.nodes if n.op not in PAIR] == ["Conv", "LeakyRelu"]


def test_a_channel_of_zeros_with_a_bias():
    weight = CONV["w"].copy()
    weight[2] = 0
    weight[3] = 1e-12
    quantized([conv("x", "y")], {**CONV, "w": weight})


def test_mse_cuts_off_an_outlier():
    # With N values and one outlier H, cut off at s * H: rounding costs N * (s * H / 255)^2 / 12 and the outlier
    # (H * (1 - s))^2. Their sum is least at s = 1 / (1 + N / (12 * 255^2)), which is 0.62 here.
    samples = RNG.random((8, 3, 160, 125), np.float32)
    samples[0, 0, 0, 0] = 50
    proto = onnx_models.model([conv("x", "y")], {"x": ("float32", [1, 3, 160, 125])}, "y", CONV)
    scales = {}
    for method in ("minmax", "mse"):
        graph = quantize_graph(proto, {"x": samples}, method=method)
        first = next(n for n in graph.nodes if n.op == PAIR[0])
        scales[method] = float(graph.constants[first.inputs[1]])
    assert scales["mse"] / scales["minmax"] == pytest.approx(0.62, abs=SHARE_STEP)


def test_samples_of_several_kinds():
    proto = onnx_models.model([conv("x", "y")], {"x": ("float32", [2, 3, 10, 9])}, "y", CONV)
    in_twos = quantize_graph(proto, {"x": SAMPLES})
    whole = quantize_graph(proto, {"x": SAMPLES.reshape(4, 2, 3, 10, 9)})
    doubles = quantize_graph(proto, {"x": SAMPLES.astype(np.float64)})
    for graph in (whole, doubles):
        for name, value in in_twos.constants.items():
            np.testing.assert_array_equal(graph.constants[name], value)


def test_samples_fix_open_sizes():
    inputs = {"x": ("float32", ["n", 3, "h", "w"])}
    graph = quantize_graph(onnx_models.model([conv("x", "y")], inputs, "y", CONV), {"x": SAMPLES})
    assert graph.types["x"].shape == (1, 3, 10, 9)


def test_the_file_holds_the_same_model(tmp_path: Path):
    proto = onnx_models.model([conv("x", "y")], {"x": ("float32", [1, 3, 10, 9])}, "y", CONV)
    onnx.save(proto, tmp_path / "float.onnx")
    np.savez(tmp_path / "samples.npz", x=SAMPLES)
    samples = load_samples(tmp_path / "samples.npz")
    quantize(tmp_path / "float.onnx", samples, tmp_path / "out.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    found = run_graph(load_onnx(tmp_path / "out.onnx"), {"x": SAMPLES[:1]})["y"]
    graph = quantize_graph(proto, {"x": SAMPLES})
    np.testing.assert_array_equal(found, run_graph(graph, {"x": SAMPLES[:1]})["y"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float.onnx", "out.onnx", "samples.npz"]


def poisoned(value: float) -> np.ndarray:
    samples = SAMPLES.copy()
    samples[5, 1, 2, 3] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "no samples for the model's input 'x'"),
        ({"x": SAMPLES, "z": SAMPLES}, "samples are named 'z'; the model's inputs: 'x'"),
        ({"image": SAMPLES}, "samples are named 'image'; the model's inputs: 'x'"),
        ({"x": SAMPLES[:0]}, "there are zero samples of 'x'"),
        ({"x": SAMPLES[:, :2]}, "have shape [8, 2, 10, 9], and the model takes [N, 3, 10, 9]"),
        ({"x": SAMPLES[0]}, "have shape [3, 10, 9], and the model takes [N, 3, 10, 9]"),
        ({"x": np.float32(1)}, "have shape [], and the model takes"),
        ({"x": poisoned(np.nan)}, "sample 5 of 'x' holds NaN"),
        ({"x": poisoned(-np.inf)}, "sample 5 of 'x' holds infinity"),
        ({"x": SAMPLES.astype(np.complex64)}, "are complex64, and the model takes float32"),
    ],
)
def test_samples_that_do_not_fit(samples: dict[str, np.ndarray], message: str, tmp_path: Path):
    proto = onnx_models.model([conv("x", "y")], {"x": ("float32", [1, 3, 10, 9])}, "y", CONV)
    with pytest.raises(CalibrationError) as caught:
        quantize(proto, samples, tmp_path / "out.onnx")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_different_counts_and_too_few_for_a_batch():
    inputs = {"x": ("float32", [3, 4]), "z": ("float32", [3, 4])}
    nodes = [node("Gemm", "x w", "t"), node("Add", "t z", "y")]
    proto = onnx_models.model(nodes, inputs, "y", {"w": normal(4, 4)})
    with pytest.raises(CalibrationError, match="different numbers of samples: 6 of 'x', 3 of 'z'"):
        quantize_graph(proto, {"x": normal(6, 4), "z": normal(3, 4)})
    with pytest.raises(CalibrationError, match="2 samples of 'x' do not fill one batch of 3"):
        quantize_graph(proto, {"x": normal(2, 4), "z": normal(2, 4)})


def test_models_with_nothing_to_quantize():
    proto = onnx_models.model([node("Relu", "x", "y")], {"x": ("float32", [1, 3])}, "y")
    with pytest.raises(CalibrationError, match="no convolution or matrix product"):
        quantize_graph(proto, {"x": normal(2, 3)})
    proto = onnx_models.model([conv("x", "y")], {"x": ("float32", [1, 3, 10, 9])}, "y", CONV)
    done = to_onnx(quantize_graph(proto, {"x": SAMPLES}))
    with pytest.raises(CalibrationError, match="quantized already"):
        quantize_graph(done, {"x": SAMPLES})


def test_a_float_model_that_overflows_is_named():
    nodes = [node("Exp", "x", "t"), conv("t", "y")]
    proto = onnx_models.model(nodes, {"x": ("float32", [1, 3, 10, 9])}, "y", CONV)
    with pytest.raises(CalibrationError, match=r"tensor 't' .* not finite for sample 0"):
        quantize_graph(proto, {"x": SAMPLES + 1000})


def test_a_missing_onnxruntime_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    proto = onnx_models.model([conv("x", "y")], {"x": ("float32", [1, 3, 10, 9])}, "y", CONV)
    with pytest.raises(CalibrationError, match=r'pip install "lowgemm\[quantize\]"'):
        quantize_graph(proto, {"x": SAMPLES})


def test_an_unknown_method():
    method: Any = "magic"
    with pytest.raises(CalibrationError, match="method 'magic' is neither"):
        quantize_graph(onnx.ModelProto(), {}, method=method)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"PK\x03\x04 cut short"])
def test_sample_files_that_are_none(tmp_path: Path, content: bytes | None):
    path = tmp_path / "s.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CalibrationError) as caught:
        load_samples(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_array_without_a_name(tmp_path: Path):
    np.save(tmp_path / "s.npy", SAMPLES)
    with pytest.raises(CalibrationError, match=r"numpy\.savez"):
        load_samples(tmp_path / "s.npy")


def test_a_sample_file_damaged_anywhere(tmp_path: Path):
    path = tmp_path / "s.npz"
    np.savez_compressed(path, x=SAMPLES[:1])
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            load_samples(path)  # a date may be damaged without harm
        except CalibrationError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > len(whole) / 7 / 2
