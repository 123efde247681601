"""How a demo run is worded."""

from pathlib import Path

import numpy as np
import pytest

from lowgemm.demo import DemoReport
from lowgemm.demo._run import Classified

TRUTH = np.array([1, 2, 3, 4], np.uint8)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "digits.so"
    path.write_bytes(b"x" * 2048)
    return path


def report(library: Path, *peers: Classified, threads: int = 2) -> DemoReport:
    ours = Classified("lowgemm int8", np.array([1, 2, 3, 0]), 12.34)
    return DemoReport(library, ours, peers, TRUTH, 0.99, threads, 1.5)


def test_beside_a_peer(library: Path) -> None:
    lines = report(library, Classified("Other float", TRUTH, 100.0)).lines()
    assert lines == [
        "4 digits that the model was not trained on, one image at a time, 2 threads",
        "accuracy float  100.00%  (computed by Other float)",
        "accuracy int8    75.00%  (computed by lowgemm int8)",
        "                median time per image  accuracy",
        "  lowgemm int8                12.3 us    75.00%",
        "  Other float                100.0 us   100.00%",
        f"compiled in 1.5 s to {library} (2 KiB)",
    ]


def test_alone_the_stored_accuracy_is_named_as_such(library: Path) -> None:
    text = "\n".join(report(library, threads=1).lines())
    assert "1 thread\n" in text
    assert "99.00%  (as stored when the model was trained)" in text
    assert "ONNX Runtime is not installed" in text
