"""The demo's network on every level that this CPU has equals the reference, bit for bit."""

from pathlib import Path

import numpy as np
import pytest

import lowgemm
from lowgemm import frontend, reference
from lowgemm.demo import MODEL_PATH, load_digits
from lowgemm.frontend.quantize import quantize

import isa

pytest.importorskip("onnxruntime", reason="calibration needs the extra lowgemm[quantize]")

# Each takes the reference a tenth of a second; ten digits that look different are enough.
IMAGES = load_digits().test[:10]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "digits-int8.onnx"
    quantize(MODEL_PATH, {"image": load_digits().calibration}, path)
    return path


@pytest.fixture(scope="module")
def expected(quantized: Path) -> np.ndarray:
    """The reference's logits, `float32[10, 10]`."""
    graph = frontend.load_onnx(quantized)
    return np.concatenate(
        [reference.run_graph(graph, {"image": image[None]})["logits"] for image in IMAGES]
    )


def logits(library: Path, threads: int) -> np.ndarray:
    net = lowgemm.load(library, threads=threads)
    return np.concatenate([net({"image": image[None]})["logits"] for image in IMAGES])


@pytest.mark.parametrize("level", isa.isas())
def test_level_equals_the_reference(
    level: str, quantized: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    library = tmp_path / f"{level}.so"
    lowgemm.compile(quantized, target=level).export(library)
    assert lowgemm.load(library).level == level
    for threads in (1, 2):
        assert np.array_equal(logits(library, threads), expected)
