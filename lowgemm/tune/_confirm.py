"""The last word on what was found: the model itself, with heuristic and with tuned kernels, timed step by step.

A kernel alone is not a kernel in a model: what the caches hold, and what the CPU does before, differ. A configuration
that is not faster there, too, by more than the noise, does not count as a win any more; nor do any, if the model with
all that are left is not faster. Where a process finds its memory moves a model's time by up to 2%, however many rounds
it is timed for, so that the noise is that of processes, not of rounds.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from lowgemm.graph import Graph
from lowgemm.schedules import KernelTask, default_config
from lowgemm.targets import CpuTarget
from lowgemm.tune._build import Builder
from lowgemm.tune._database import Database, Record
from lowgemm.tune._measure import Runner
from lowgemm.tune._search import TaskState
from lowgemm.tune._tuner import is_gain

# Processes that time the two models, and rounds in each.
_PLACES, _ROUNDS = 8, 8
_DETAIL, _TOTAL = "in_model", "model"

# In each process, in each round, the seconds of each step.
Places = list[list[list[float]]]


def confirm(
    graph: Graph,
    level: CpuTarget,
    threads: int,
    states: Sequence[TaskState],
    database: Database,
    runner: Runner,
    builder: Builder,
) -> None:
    """Compare the kernels of `graph` with the best configurations of `states` to the heuristic ones.

    The records of what gains nothing are amended to have lost, those of what does get the ratio of times in the model.
    """
    best = {s.task.key: s.incumbent for s in states if s.task.target.level == level.level}
    tuned = {
        key: record
        for key, record in best.items()
        if record is not None and record.config != default_config(record.task)
    }
    if all(_DETAIL in record.details for record in tuned.values()):
        return
    model = _Model(graph, level, threads, runner, builder)
    default, changed, tasks = model.timed(tuned)
    kept: dict[tuple, Record] = {}
    for key, record in tuned.items():
        found = _ratio(*(seconds_of(key, times, tasks) for times in (default, changed)))
        marked = replace(record, details={**record.details, _DETAIL: found})
        if is_gain(found["ratio"], found["noise"]):
            kept[key] = marked
        else:
            _take_back(marked, database)
    if kept and len(kept) < len(tuned):
        default, changed, _ = model.timed(kept)
    # Where code and constants come to lie changes other kernels' times, too: the whole must gain.
    total = _ratio(
        *([[sum(s) for s in rounds] for rounds in times] for times in (default, changed))
    )
    for record in kept.values():
        if is_gain(total["ratio"], total["noise"]):
            database.amend(record)
        else:
            _take_back(replace(record, details={**record.details, _TOTAL: total}), database)


class _Model:
    """A model, to be timed with heuristic configurations beside others."""

    def __init__(
        self, graph: Graph, level: CpuTarget, threads: int, runner: Runner, builder: Builder
    ) -> None:
        self._what, self._runner, self._builder = (graph, level, threads), runner, builder
        self._default, self._tasks = builder.model(*self._what, {})

    def timed(self, records: dict[tuple, Record]) -> tuple[Places, Places, list[KernelTask | None]]:
        """The seconds of every step without `records` and with them, and the steps' tasks."""
        configs = {key: record.config for key, record in records.items()}
        library, tasks = self._builder.model(*self._what, configs)
        assert tasks == self._tasks, "a configuration changes kernels, not their order"
        *_, threads = self._what
        models = (self._default, library)
        pairs = [self._runner.compare_models(models, threads, _ROUNDS) for _ in range(_PLACES)]
        default, changed = ([pair[index] for pair in pairs] for index in (0, 1))
        return default, changed, tasks


def _ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean ratio of second to first times, of a process the median of its rounds, and its standard error."""
    logs = [
        statistics.median(math.log(b / a) for a, b in zip(*rounds, strict=True))
        for rounds in zip(first, second, strict=True)
    ]
    noise = statistics.stdev(logs) / math.sqrt(len(logs))
    return {"ratio": round(math.exp(statistics.mean(logs)), 5), "noise": round(noise, 5)}


def _take_back(record: Record, database: Database) -> None:
    """Let `record` and all that won before it have lost to the heuristic choice."""
    for other in database.of(record.task, record.cpu):
        if other.won and other.config != default_config(record.task):
            lost = record if other.config == record.config else other
            database.amend(replace(lost, won=False))


def seconds_of(key: tuple, places: Places, tasks: Sequence[KernelTask | None]) -> list[list[float]]:
    """What all steps of one task take together, in each process, in each round."""
    own = [index for index, task in enumerate(tasks) if task is not None and task.key == key]
    return [[sum(steps[index] for index in own) for steps in rounds] for rounds in places]
