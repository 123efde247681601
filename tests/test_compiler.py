"""The pipeline: what TVM cannot compile is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import lowgemm
from lowgemm.artifact import objects
from lowgemm.errors import UnsupportedOperatorError

from onnx_models import model, node


@pytest.fixture
def tangents(tmp_path: Path) -> Path:
    """A float model of several kernels, of which one takes tangents."""
    nodes = [node("Neg", "x", "a"), node("MatMul", "a b", "c"), node("Tan", "c", "y")]
    proto = model(nodes, {"x": ("float32", (2, 3))}, "y", {"b": np.eye(3, dtype=np.float32)})
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_float_kernel_without_code_is_named(tangents: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever TVM raises: it is one kernel's fault."""
    compile_kernels = objects.compile_kernels

    def without_tangent(module, *args, **options):
        if "T.tan(" in module.script():
            raise RuntimeError("unknown intrinsic\nand a backtrace")
        return compile_kernels(module, *args, **options)

    monkeypatch.setattr(objects, "compile_kernels", without_tangent)
    with pytest.raises(UnsupportedOperatorError, match="the_Tan_y") as refused:
        lowgemm.compile(tangents, target="avx2")
    assert "\n" not in str(refused.value)


def test_other_failures_are_not_the_models(tangents: Path, monkeypatch: pytest.MonkeyPatch):
    def fail_together(module, target, trusting, **options):
        if (
            trusting
        ):  # as a model's kernels are compiled, but not those that are looked at one by one
            raise RuntimeError("a defect")
        return compile_kernels(module, target, trusting, **options)

    compile_kernels = objects.compile_kernels
    monkeypatch.setattr(objects, "compile_kernels", fail_together)
    with pytest.raises(RuntimeError, match="a defect"):
        lowgemm.compile(tangents, target="avx2")
