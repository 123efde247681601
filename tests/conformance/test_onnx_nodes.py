"""The node tests of the ONNX standard: every one is computed right or refused in one line."""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lowgemm
from lowgemm.errors import ModelError
from lowgemm.frontend import load_onnx
from lowgemm.reference import run_graph

from isa import isas

# As onnx's own runner has them.
RELATIVE, ABSOLUTE = 1e-3, 1e-7
# How many cases the installed release computes; fewer means that something stopped being supported.
LEAST_COMPUTED = 900

# With align_corners and a scale that gives no whole number of elements the standard's evaluator
# divides by the fractional size, ONNX Runtime and PyTorch by the real one; so do we.
OTHER_READING = {
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}

QUANTIZATION = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
# Of these operators' cases, what is refused: part of a case's name -> what the message names.
REFUSED_TYPES = {
    "e4m3fn_float16": "float16",
    "e4m3fn": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "float4e2m1": "float4_e2m1fn",
    "linear_uint4": "uint4",
    "linear_int4": "int4",
    "linear_uint2": "uint2",
    "linear_int2": "int2",
    "blocked": "scales for blocks",
    "_float16": "float16",
}


def as_array(value: Any) -> Any:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def frozen(model: onnx.ModelProto, inputs: list[Any]) -> onnx.ModelProto:
    """The model with everything but its first input as constants: axes, shapes, weights, ..."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value, array in list(zip(model.graph.input, inputs, strict=True))[1:]:
        if isinstance(array, np.ndarray):
            copy.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return copy


def outcome(model: onnx.ModelProto, inputs: list[Any], expected: list[Any]) -> str:
    """ "computed", "refused", or what went wrong."""
    try:
        graph = load_onnx(model)
    except ModelError as error:
        assert "\n" not in str(error)
        return "refused"
    names = [value.name for value in model.graph.input]
    given = {n: a for n, a in zip(names, inputs, strict=False) if n in graph.inputs}
    results = run_graph(graph, given)
    for name, value in zip(graph.outputs, expected, strict=True):
        found = results[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            return f"{name} is {found.dtype}{found.shape}, not {value.dtype}{value.shape}"
        if value.dtype.kind == "f":
            if not np.allclose(found, value, RELATIVE, ABSOLUTE, equal_nan=True):
                return f"{name} differs by {np.nanmax(np.abs(found - value))}"
        elif not np.array_equal(found, value):
            return f"{name} differs"
    return "computed"


def cases() -> Iterator[tuple[str, onnx.ModelProto, list[Any], list[Any]]]:
    """(name, model, inputs, outputs) of the standard's cases that have models."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        found = collect_testcases(None)
    for case in found:
        for arrays, results in (case.model is not None and case.data_sets) or ():
            assert case.model is not None
            inputs, expected = ([as_array(x) for x in values] for values in (arrays, results))
            yield case.name, case.model, inputs, expected


@pytest.mark.slow
def test_every_node_case_is_computed_or_refused():
    counts: Counter[str] = Counter()
    wrong = {}
    for name, original, inputs, expected in cases():
        if name in OTHER_READING:
            continue
        if any(isinstance(x, np.ndarray) and x.size == 0 for x in inputs):
            continue  # an input's size of 0 is read as "open", as exporters mean it
        found = "refused"
        for model in (original, frozen(original, inputs)):
            found = outcome(model, inputs, expected)
            if found not in ("computed", "refused"):
                wrong[name] = found
            if found != "refused":
                break
        counts[found] += 1
    assert wrong == {}
    assert counts["computed"] >= LEAST_COMPUTED, counts


def quantization_cases() -> tuple[dict[str, tuple], dict[str, str]]:
    """The cases of quantization operators that are taken, as (model, inputs, outputs), and why the others are not.

    Scales and zero points are constants in models that exporters write, and inputs in some cases: they become constants
    where they must.
    """
    taken, refused = {}, {}
    for name, original, inputs, expected in cases():
        if not QUANTIZATION & {node.op_type for node in original.graph.node}:
            continue
        for model in (original, frozen(original, inputs)):
            try:
                load_onnx(model)
            except ModelError as error:
                refused[name] = str(error)
            else:
                taken[name] = (model, inputs, expected)
                refused.pop(name, None)
                break
    return taken, refused


def joined(models: dict[str, onnx.ModelProto]) -> onnx.ModelProto:
    """All models side by side in one; each name begins with its model's."""
    first = next(iter(models.values()))
    graph = onnx.GraphProto(name="joined")
    for name, model in models.items():
        part = onnx.compose.add_prefix_graph(model.graph, f"{name}/")
        constants = {constant.name for constant in part.initializer}
        graph.node.extend(part.node)
        graph.initializer.extend(part.initializer)
        graph.input.extend(value for value in part.input if value.name not in constants)
        graph.output.extend(part.output)
    return onnx.helper.make_model(graph, opset_imports=first.opset_import, ir_version=10)


def test_quantization_cases_are_taken_or_refused_by_name() -> None:
    taken, refused = quantization_cases()
    operators = {node.op_type for model, *_ in taken.values() for node in model.graph.node}
    assert operators >= QUANTIZATION
    for name, message in refused.items():
        named = next((words for part, words in REFUSED_TYPES.items() if part in name), None)
        assert named is not None, f"{name}: {message}"
        assert named in message and "\n" not in message
    for name in taken:
        assert not any(part in name for part in REFUSED_TYPES), name


@pytest.mark.parametrize("isa", isas(native=True))
def test_compiled_quantization_cases(isa: str, tmp_path: Path, conformance) -> None:
    """What kernels compute is what the standard says, to the last bit."""
    taken, _ = quantization_cases()
    versions = {model.opset_import[0].version for model, *_ in taken.values()}
    for version in versions:
        part = {
            name: case for name, case in taken.items() if case[0].opset_import[0].version == version
        }
        path = tmp_path / f"{version}.onnx"
        onnx.save(joined({name: model for name, (model, *_) in part.items()}), path)
        lowgemm.compile(path, target=isa).export(tmp_path / f"{version}.so")
        net = lowgemm.load(tmp_path / f"{version}.so")
        given = {
            f"{name}/{value.name}": array
            for name, (model, inputs, _) in part.items()
            for value, array in zip(model.graph.input, inputs, strict=False)
        }
        results = net({port.name: given[port.name] for port in net.inputs})
        for name, (model, _, expected) in part.items():
            for value, wanted in zip(model.graph.output, expected, strict=True):
                found = results[f"{name}/{value.name}"]
                assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
                assert (found == wanted).all(), name
        for model, *_ in part.values():
            for operator in {node.op_type for node in model.graph.node} & QUANTIZATION:
                conformance(f"ONNX {operator}", isa, 1)
