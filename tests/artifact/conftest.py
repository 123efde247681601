"""The demo's network as a library of two levels, compiled once for these tests."""

from pathlib import Path

import pytest

import lowgemm
from lowgemm.demo import MODEL_PATH, load_digits

LEVELS = "avx2,avx512_vnni"


@pytest.fixture(scope="session")
def quantized_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model in QDQ form."""
    pytest.importorskip("onnxruntime", reason="calibration needs the extra lowgemm[quantize]")
    from lowgemm.frontend.quantize import quantize

    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    quantize(MODEL_PATH, {"image": load_digits().calibration[:10]}, path)
    return path


@pytest.fixture(scope="session")
def digits_library(quantized_digits: Path) -> Path:
    """digits.so, and digits.h beside it."""
    path = quantized_digits.with_suffix(".so")
    lowgemm.compile(quantized_digits, target=LEVELS).export(path)
    return path
