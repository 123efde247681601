"""`python -m benchmarks`: what it refuses before it measures anything."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as commands
from benchmarks.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("models --filter nothing", 'nothing of models has "nothing" in its name'),
        ("accuracy --filter nothing", 'nothing of models has "nothing" in its name'),
        ("models --against onnxruntime,fbgemm", "no peer fbgemm; there are onnxruntime, openvino"),
        ("gemm --against openvino", "no peer openvino; there are fbgemm, onednn-torch, onednn"),
        ("conv --threads 0", "0 is not in the range"),
        ("all --families gemm,nothing", "no family nothing; there are gemm, conv, depthwise"),
    ],
)
def test_wrong_arguments_are_named(arguments: str, message: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert message in result.output


def test_more_threads_than_cpus_are_refused() -> None:
    result = CliRunner().invoke(main, ["depthwise", "--threads", "100000"])
    assert result.exit_code == 1


def test_all_families_go_on_and_compare_with_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"name": "a", "lowgemm_us": 1.0}]
    one = {"host": {}, "rows": rows, "summary": {}}
    (tmp_path / "gemm-1t-flushed.json").write_text(json.dumps(one))
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(commands, "_measure", lambda *arguments: calls.append(arguments))
    flags = ["--threads", "2", "--state", "flushed", "--families", "gemm,conv"]
    result = CliRunner().invoke(main, ["all", *flags, "--json-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    gemm, conv = calls
    assert gemm[:2] == ("gemm", "") and gemm[3] == ("fbgemm", "onednn-torch", "onednn")
    assert gemm[4:] == ((2, 3.0, "flushed"), tmp_path / "gemm-2t-flushed.json", True, rows)
    assert conv[4:] == ((2, 3.0, "flushed"), tmp_path / "conv-2t-flushed.json", True, ())
