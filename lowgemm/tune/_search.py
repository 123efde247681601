"""Which trial comes next: functions of the database and a seed alone, so that a run that was stopped goes on as it
would have."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lowgemm.schedules import KernelTask, default_config
from lowgemm.tune._database import Record
from lowgemm.tune._model import CostModel
from lowgemm.tune._problem import task_seed

# After so many trials of a task in a row without a win it is done.
PATIENCE = 32
# One in so many trials is drawn at random, against what the model has not seen.
_EXPLORE = 8


@dataclass(frozen=True)
class TaskState:
    """Where a task stands: its share of the model (`count` kernels), its space, and its trials on one CPU in order."""

    task: KernelTask
    count: int
    space: Sequence[Any]
    trials: Sequence[Record]

    @property
    def incumbent(self) -> Record | None:
        """The best record that beat those before it."""
        won = [r for r in self.trials if r.won and r.relative is not None]
        return min(won, key=lambda r: r.relative or math.inf, default=None)

    @property
    def stale(self) -> int:
        """Trials since the last win."""
        last = max((i for i, r in enumerate(self.trials) if r.won), default=-1)
        return len(self.trials) - 1 - last

    @property
    def done(self) -> bool:
        """Whether no trial is left that promises anything."""
        return self.stale >= PATIENCE or len(self.trials) >= len(self.space)

    @property
    def weight(self) -> float:
        """Seconds of a run of the model that the task takes; infinite as long as nobody knows."""
        incumbent = self.incumbent
        return self.count * incumbent.seconds if incumbent and incumbent.seconds else math.inf


def next_task(states: Sequence[TaskState]) -> TaskState | None:
    """The task to try next, so that trials are shared as time is; None if all are done."""
    open_ = [state for state in states if not state.done]
    # The rule of D'Hondt: who has the most time for each trial it has had. Who has had none comes first.
    return max(open_, key=lambda s: s.weight / (1 + len(s.trials)), default=None)


def propose(state: TaskState, records: Sequence[Record], seed: int, count: int) -> list[Any]:
    """Up to `count` configurations to measure next, the most promising first; `records` teach the cost model."""
    tried = {r.config for r in state.trials}
    default = default_config(state.task)
    if default not in tried:
        return [default]
    left = [config for config in state.space if config not in tried]
    rng = np.random.default_rng([seed, task_seed(state.task), len(state.trials)])
    order = rng.permutation(len(left))
    model = CostModel.fit(records, seed, state.task)
    if model is None:
        scores = np.array([_distance(config, default) for config in left], float)
    else:
        scores = model.predict(state.task, left)
    ranked = sorted(order, key=lambda index: scores[index])
    explored = sum(_explores(len(state.trials) + i) for i in range(count))
    chosen = ranked[: count - explored]
    chosen += [index for index in order if index not in {*chosen}][:explored]
    return [left[index] for index in chosen]


def _explores(trial: int) -> bool:
    return trial % _EXPLORE == _EXPLORE - 1


def _distance(config: Any, other: Any) -> int:
    """In how many knobs two configurations differ."""
    a, b = asdict(config), asdict(other)
    return sum(a[name] != b[name] for name in a)
