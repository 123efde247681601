"""The cost model ranks configurations, says by what, and is the same every time."""

import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from lowgemm import schedules
from lowgemm.errors import TuningError
from lowgemm.tune._database import Record
from lowgemm.tune._model import CostModel

from fake_tuning import CPU, conv_task, seconds

TASK = conv_task()
SPACE = schedules.config_space(TASK)


def records(count: int, task=TASK, factor: float = 1.0) -> list[Record]:
    space = schedules.config_space(task)
    configs = [space[i] for i in np.random.default_rng(0).permutation(len(space))[:count]]
    return [
        Record(task, c, CPU, 1.0, factor * 1e4 * seconds(asdict(c)), 0.0, True) for c in configs
    ]


def rank_correlation(model: CostModel) -> float:
    predicted = model.predict(TASK, SPACE)
    true = [seconds(asdict(config)) for config in SPACE]
    first, second = (np.argsort(np.argsort(values)) for values in (predicted, true))
    return float(np.corrcoef(first, second)[0, 1])


def test_it_ranks_what_it_has_not_seen() -> None:
    model = CostModel.fit(records(40), seed=0)
    assert model is not None and rank_correlation(model) > 0.8


def test_each_task_is_compared_with_its_own_best() -> None:
    """Records of another shape whose times are relative to a much worse default teach the same."""
    model = CostModel.fit(records(40, conv_task(channels=128), factor=7.0), seed=0)
    assert model is not None and rank_correlation(model) > 0.7


def test_few_records_say_nothing() -> None:
    assert CostModel.fit(records(40)[:7], seed=0) is None


def test_the_same_records_give_the_same_model() -> None:
    first, second = (CostModel.fit(records(40), seed=3) for _ in range(2))
    assert first is not None and second is not None
    assert np.array_equal(first.predict(TASK, SPACE), second.predict(TASK, SPACE))


def test_what_failed_ranks_last() -> None:
    known = [
        replace(r, failure="crash", relative=None, seconds=None) if r.config.unroll == 4 else r
        for r in records(60)
    ]
    model = CostModel.fit(known, seed=0)
    assert model is not None
    scores = model.predict(TASK, SPACE)
    bad = [s for s, config in zip(scores, SPACE, strict=True) if config.unroll == 4]
    good = [s for s, config in zip(scores, SPACE, strict=True) if config.unroll != 4]
    assert np.percentile(bad, 5) > np.percentile(good, 95)


def test_importances_are_shares() -> None:
    model = CostModel.fit(records(60), seed=0)
    assert model is not None
    shares = model.importances()
    assert sum(shares.values()) == pytest.approx(1)
    assert [*shares.values()] == sorted(shares.values(), reverse=True)


def test_it_sees_what_it_is_told_to() -> None:
    knobs = ["columns", "unroll", "widen"]
    model = CostModel.fit(records(60), seed=0, names=knobs)
    assert model is not None
    assert {*model.importances()} <= {*knobs} and model.importances()["columns"] > 0
    assert len(model.predict(TASK, SPACE)) == len(SPACE)


def test_without_xgboost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(TuningError, match=r"pip install 'lowgemm\[tune\]'"):
        CostModel.fit(records(40), seed=0)
