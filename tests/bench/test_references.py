"""What counts as a right result of a model."""

from pathlib import Path

import numpy as np
import pytest

from lowgemm.bench import references
from lowgemm.bench.engines import Arrays, Engine
from lowgemm.bench.references import References


def result(error: float) -> np.ndarray:
    """One that is so far off."""
    return np.array([1.0, error])


def verdict(monkeypatch: pytest.MonkeyPatch, spread: float, error: float) -> tuple[float, bool]:
    """Of a result so far off, where ONNX Runtime's two exact results are `spread` apart."""

    class Fake(Engine):
        def __init__(self, model: Path, threads: int, exact: bool, joined: bool = True) -> None:
            assert (model, exact) == (Path("net.qdq.onnx"), True)
            self.result = result(0.0 if joined else spread)

        def run(self, inputs: Arrays) -> object:
            raise NotImplementedError

        def outputs(self, inputs: Arrays) -> list[np.ndarray]:
            return [self.result]

    monkeypatch.setattr(references, "OnnxRuntime", Fake)
    forms = {"float": Path("net.onnx"), "qdq": Path("net.qdq.onnx")}
    return References(forms, [{}]).verdict("qdq", result(error))


@pytest.mark.parametrize(
    ("spread", "error", "right"),
    [
        (0.0, 0.0, True),
        (0.0, 0.04, True),
        (0.0, 0.06, False),
        # A model whose right results are far apart by themselves.
        (0.1, 0.09, True),
        (0.1, 0.11, False),
        # One whose right results are near each other asks no more than all others.
        (0.01, 0.04, True),
    ],
)
def test_a_result_is_right_if_it_is_as_near_as_right_ones_are(
    monkeypatch: pytest.MonkeyPatch, spread: float, error: float, right: bool
) -> None:
    found, verdict_ = verdict(monkeypatch, spread, error)
    assert found == pytest.approx(error)
    assert verdict_ == right
