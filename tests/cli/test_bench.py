"""`lowgemm bench`: a user's model beside other engines, from the flags to the record."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import lowgemm
from lowgemm.bench import engines, host
from lowgemm.cli import main
from lowgemm.errors import UnsupportedOperatorError

import onnx_models
from onnx_models import node

PEAKS = {
    "dot_gops": {"vpmaddwd+vpaddd ymm": 100.0},
    "fma_gops": {"vfmadd231ps ymm": 50.0},
    "read_gb_per_s": {"memory": 10.0},
}


@pytest.fixture(autouse=True)
def affinity() -> Iterator[None]:
    """Measuring pins the process; the next test has all CPUs again."""
    allowed = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measuring the machine would find."""

    def prepare(threads: int, seconds: float, state: str) -> tuple[dict[str, Any], host.Setting]:
        setting = host.Setting(threads, seconds, state, PEAKS, {})
        return {"host": "box", "peaks": {str(threads): PEAKS}}, setting

    monkeypatch.setattr(host, "prepare", prepare)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A float convolution with an open batch."""
    weight = np.random.default_rng(0).normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")]
    proto = onnx_models.model(nodes, {"x": ("float32", (None, 3, 8, 8))}, "y", {"w": weight})
    onnx.save(proto, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "tflite"], "no engine tflite; there are onnxruntime, openvino"),
        (["--json", "nowhere/record.json"], 'folder "nowhere" does not exist'),
        (["--threads", "0"], "0 is not in the range"),
        (["--calibrate", "none.npz"], "none.npz does not exist"),
    ],
)
def test_wrong_arguments_are_named_in_a_line(
    arguments: list[str], message: str, model: Path, quick: None
) -> None:
    result = invoke(model, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_file_that_is_no_model_is_named_in_a_line(tmp_path: Path, quick: None) -> None:
    result = invoke(tmp_path / "absent.onnx", "--against", "")
    assert result.exit_code == 2
    assert "absent.onnx" in result.stderr and len(result.stderr.splitlines()) == 1


def test_more_threads_than_cpus_are_refused(model: Path) -> None:
    result = invoke(model, "--threads", 100_000)
    assert result.exit_code == 2
    assert "--threads 100000: only" in result.stderr


def test_engines_that_are_not_installed_are_named(
    model: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: False)
    monkeypatch.setattr("lowgemm.bench.models.installed", lambda name: False)
    result = invoke(model, "--seconds", 0)
    assert result.exit_code == 0, result.output
    assert "openvino is not installed, so it is not measured" in result.stderr
    assert "results are not checked" in result.stderr
    assert "lowgemm" in result.stdout and "ratio" not in result.stdout


def test_what_lowgemm_cannot_compile_is_an_error(
    model: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise UnsupportedOperatorError("cannot compile Foo")

    monkeypatch.setattr(lowgemm, "compile", refuse)
    result = invoke(model, "--against", "", "--seconds", 0)
    assert result.exit_code == 2
    assert "lowgemm failed on" in result.stderr and "cannot compile Foo" in result.stderr


def test_a_float_model_and_samples_make_a_record(model: Path, tmp_path: Path) -> None:
    """With the machine's real peaks."""
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    samples = tmp_path / "samples.npz"
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.savez(samples, x=x)
    path = tmp_path / "record.json"
    flags = ["--calibrate", samples, "--against", "onnxruntime", "--seconds", 0, "--threads", 1]
    result = invoke(model, *flags, "--json", path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    (row,) = found["rows"]
    assert (row["name"], row["shape"], row["threads"]) == ("small", "x 1x3x8x8", 1)
    assert set(row["peers_us"]) | set(row["wrong_us"]) == {"onnxruntime float", "onnxruntime qdq"}
    assert row["lowgemm_us"] > 0 and row["errors"]["lowgemm"] < 0.05
    assert row["macs"] == 8 * 8 * 4 * 27
    assert row["ratio"] == pytest.approx(min(row["peers_us"].values()) / row["lowgemm_us"])
    assert found["summary"]["geomean_ratio"] == pytest.approx(row["ratio"])
    assert found["host"]["peaks"]["1"]["dot_gops"] and found["host"]["commit"] is None
    assert "small  x 1x3x8x8" in result.stdout


def test_a_quantized_model_runs_as_it_is(model: Path, tmp_path: Path, quick: None) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    quantized, path = tmp_path / "quantized.onnx", tmp_path / "record.json"
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    lowgemm.quantize(model, {"x": x}, quantized)
    result = invoke(quantized, "--against", "onnxruntime", "--seconds", 0, "--json", path)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(path.read_text())["rows"]
    assert set(row["peers_us"]) | set(row["wrong_us"]) == {"onnxruntime qdq"}
    assert row["dtype"] == "u8s8"
