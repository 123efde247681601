"""The cost model: gradient-boosted trees that rank the configurations of a task before they are measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lowgemm.errors import TuningError
from lowgemm.schedules import KernelTask
from lowgemm.tune._database import Record
from lowgemm.tune._features import matrix

# Fewer records than this say nothing.
_LEAST_RECORDS = 8
_ROUNDS = 60
# What a configuration that failed counts as: slower than all that works.
_FAILED = 4.0
# Slower than this against the task's best, configurations need not be told from one another.
_SLOWEST = 3.0


class CostModel:
    """Predicts the logarithm of a configuration's time over that of the task's best one."""

    def __init__(self, booster: Any, names: list[str]) -> None:
        self._booster, self._names = booster, names

    @staticmethod
    def fit(
        records: Sequence[Record],
        seed: int,
        task: KernelTask | None = None,
        names: Sequence[str] | None = None,
    ) -> "CostModel | None":
        """Trained on `records` of any tasks and CPUs, those of `task` counting most; None if they are too few.

        It sees the features `names`, or all. The same records and seed give the same model.
        """
        if len(records) < _LEAST_RECORDS:
            return None
        xgboost = _xgboost()
        # Each task on each CPU has a best of its own: what is learnt is how much slower others are.
        groups: dict[tuple, list[float]] = {}
        for record in records:
            if record.relative is not None:
                groups.setdefault((record.task.key, record.cpu), []).append(record.relative)
        labels, weights = [], []
        for record in records:
            best = min(groups.get((record.task.key, record.cpu), [1.0]))
            ratio = _FAILED if record.relative is None else record.relative / best
            labels.append(np.log(min(ratio, _SLOWEST if record.relative else _FAILED)))
            own = task is not None and record.task.key == task.key
            weights.append(1.0 if task is None or own else 0.3)
        values, names = matrix([r.task for r in records], [r.config for r in records], names)
        data = xgboost.DMatrix(values, np.array(labels), weight=weights, feature_names=names)
        booster = xgboost.train(_parameters(seed), data, _ROUNDS)
        return CostModel(booster, names)

    def predict(self, task: KernelTask, configs: Sequence[Any]) -> np.ndarray:
        """A score of each configuration, the lower the faster."""
        values, _ = matrix([task] * len(configs), configs, self._names)
        return self._booster.predict(_xgboost().DMatrix(values, feature_names=self._names))

    def importances(self) -> dict[str, float]:
        """Each feature's share of what the trees gained, largest first."""
        gains = self._booster.get_score(importance_type="total_gain")
        total = sum(gains.values()) or 1.0
        return {name: gain / total for name, gain in sorted(gains.items(), key=lambda g: -g[1])}


def _parameters(seed: int) -> dict[str, Any]:
    return {
        "objective": "reg:squarederror",
        "max_depth": 5,
        "eta": 0.15,
        "min_child_weight": 0.5,
        "subsample": 0.9,
        "seed": seed,
        "nthread": 1,  # sums in one order: the same model every time
        "verbosity": 0,
    }


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError:
        raise TuningError("tuning needs xgboost: pip install 'lowgemm[tune]'") from None
    return xgboost
