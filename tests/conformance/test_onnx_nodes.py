"""The node tests of the ONNX standard: every one is computed right or refused in one line."""

import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from lowgemm.errors import ModelError
from lowgemm.frontend import load_onnx
from lowgemm.reference import run_graph

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


@pytest.mark.slow
def test_every_node_case_is_computed_or_refused():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        cases = collect_testcases(None)
    counts: Counter[str] = Counter()
    wrong = {}
    for case in cases:
        if case.name in OTHER_READING or case.model is None:
            continue
        for arrays, results in case.data_sets or ():
            inputs, expected = [as_array(x) for x in arrays], [as_array(y) for y in results]
            if any(isinstance(x, np.ndarray) and x.size == 0 for x in inputs):
                continue  # an input's size of 0 is read as "open", as exporters mean it
            for model in (case.model, frozen(case.model, inputs)):
                found = outcome(model, inputs, expected)
                if found not in ("computed", "refused"):
                    wrong[case.name] = found
                if found != "refused":
                    break
            counts[found] += 1
    assert wrong == {}
    assert counts["computed"] >= LEAST_COMPUTED, counts
