"""`python -m benchmarks`: what it refuses before it measures anything."""

import pytest
from click.testing import CliRunner

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
