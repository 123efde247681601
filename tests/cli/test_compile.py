"""`lowgemm compile` hands its flags on; the compiler itself is replaced here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import lowgemm
from lowgemm.cli import main


class FakeModel:
    """With kernels of the names `kernels`."""

    def __init__(self, *kernels: str) -> None:
        steps = [SimpleNamespace(kernel=kernel) for kernel in kernels]
        self.plan = SimpleNamespace(variants=[SimpleNamespace(steps=steps)])

    def export(self, path: Path) -> None:
        path.write_bytes(b"library")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each call of the compiler, in whose place a fake stands."""
    made: list[dict[str, Any]] = []

    def compile(model: Path, **arguments: Any) -> FakeModel:
        made.append({"model": model, **arguments})
        return FakeModel(
            "move_avx2", "qconv2d_avx2" if "quantized" in model.name else "float_conv2d_avx2"
        )

    monkeypatch.setattr(lowgemm, "compile", compile, raising=False)
    return made


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compile", *map(str, arguments)])


def test_defaults(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    result = invoke("quantized.onnx", "-o", tmp_path / "m.so")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert calls == [
        {
            "model": Path("quantized.onnx"),
            "target": "host",
            "calibration": None,
            "shapes": None,
            "threads": None,
            "tuning_db": None,
        }
    ]


def test_every_flag(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.ones((4, 3, 8, 8), np.float32))
    flags = ["--calibrate", samples, "--target", "avx2,avx512_vnni", "--threads", 2]
    flags += ["--shape", "x=1x3x8x8", "--shape", "y=2", "--tuning-db", tmp_path / "db.jsonl"]
    result = invoke("quantized.onnx", "-o", tmp_path / "m.so", *flags)
    assert result.exit_code == 0, result.output
    (call,) = calls
    assert call["target"] == "avx2,avx512_vnni"
    assert call["shapes"] == {"x": (1, 3, 8, 8), "y": (2,)}
    assert call["threads"] == 2
    assert call["tuning_db"] == tmp_path / "db.jsonl"
    assert call["calibration"]["x"].shape == (4, 3, 8, 8)


def test_output_is_required(calls: list[dict[str, Any]]) -> None:
    result = invoke("quantized.onnx")
    assert result.exit_code == 2
    assert "-o" in result.stderr
    assert not calls


def test_output_folder_is_checked_before_compiling(
    calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = invoke("quantized.onnx", "-o", tmp_path / "no" / "m.so")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert not calls


@pytest.mark.parametrize("threads", ["0", "-1", "two"])
def test_bad_thread_count(calls: list[dict[str, Any]], tmp_path: Path, threads: str) -> None:
    result = invoke("quantized.onnx", "-o", tmp_path / "m.so", "--threads", threads)
    assert result.exit_code == 2
    assert not calls


def test_model_that_stays_float_is_noted(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    result = invoke("quantized.onnx", "-o", tmp_path / "m.so")
    assert "--calibrate" not in result.stderr
    result = invoke("float.onnx", "-o", tmp_path / "m.so")
    assert result.exit_code == 0, result.output
    assert (
        "float.onnx is a float model and stays one; --calibrate would quantize it" in result.stderr
    )


def test_library_under_the_headers_name(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    result = invoke("m.onnx", "-o", tmp_path / "m.h")
    assert result.exit_code == 2
    assert "OUT.h is the C header; name the library OUT.so" in result.stderr
    assert not calls


def test_missing_c_compiler_is_told_before_compiling(
    calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    result = invoke("m.onnx", "-o", tmp_path / "m.so")
    assert result.exit_code == 2
    assert "no-such-compiler" in result.stderr
    assert not calls
