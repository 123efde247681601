"""Agreement of int8 results, from scores that are made up."""

import numpy as np
import pytest

from benchmarks.accuracy import Scores

REFERENCE = np.array([[9.0, 1, 0], [0, 9, 1], [0, 1, 9], [9, 1, 0]])
PEER = np.array([[8.0, 0, 0], [0, 8, 0], [0, 0, 8], [0, 8, 0]])
OWN = np.array([[8.0, 0, 0], [0, 8, 0], [8, 0, 6], [0, 8, 0]])


def scores(labels: list[int] | None) -> Scores:
    truth = None if labels is None else np.array(labels)
    return Scores("net", "qdq", REFERENCE, PEER, OWN, truth)


def test_shares_are_of_right_labels() -> None:
    shares = scores([0, 1, 1, 1]).shares()
    assert shares == {"float": 0.5, "onnxruntime int8": 0.75, "lowgemm int8": 0.75}


def test_without_labels_the_float_model_is_right() -> None:
    shares = scores(None).shares()
    assert shares == {"float": 1.0, "onnxruntime int8": 0.75, "lowgemm int8": 0.5}


def test_top1_is_compared_with_onnx_runtime() -> None:
    found = scores(None)
    assert found.same_top1.tolist() == [True, True, False, True]
    assert found.margin.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert found.distance == pytest.approx(np.sqrt(68 / 256))
    assert "input 2: margin" in str(found)
