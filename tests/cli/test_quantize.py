"""`lowgemm quantize` hands its flags on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from lowgemm.cli import main
from lowgemm.demo import MODEL_PATH, load_digits

pytest.importorskip("onnxruntime", reason="calibration needs the extra lowgemm[quantize]")


@pytest.mark.parametrize(
    ("flags", "reduced"), [([], True), (["--reduce-range"], True), (["--no-reduce-range"], False)]
)
def test_the_range_of_weights_is_reduced_unless_told_otherwise(
    flags: list[str], reduced: bool, tmp_path: Path
) -> None:
    np.savez(tmp_path / "s.npz", image=load_digits().calibration[:4])
    paths = [MODEL_PATH, "--calibrate", tmp_path / "s.npz", "-o", tmp_path / "q.onnx"]
    result = CliRunner().invoke(main, ["quantize", *map(str, paths), *flags])
    assert result.exit_code == 0, result.output
    weights = [
        value
        for value in map(numpy_helper.to_array, onnx.load(tmp_path / "q.onnx").graph.initializer)
        if value.dtype == np.int8 and value.ndim > 1
    ]
    # All of int8 is used by every channel only if no channel's scale was widened.
    peaks = [np.abs(value.reshape(len(value), -1)).max(1) for value in weights if value.ndim == 4]
    assert peaks
    assert all(np.all(peak == 127) for peak in peaks) != reduced
