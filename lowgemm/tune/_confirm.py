"""The last word on what was found: the model itself, with heuristic and with tuned kernels, timed step by step.

A kernel alone is not a kernel in a model: what the caches hold, and what the CPU does before, differ. A configuration
that is not faster there, too, by more than the noise, does not count as a win any more; nor do any, if the model with
all that are left is not faster.
"""

from collections.abc import Sequence
from dataclasses import replace

from lowgemm.graph import Graph
from lowgemm.schedules import KernelTask, default_config
from lowgemm.targets import CpuTarget
from lowgemm.tune._build import Builder
from lowgemm.tune._child import compare
from lowgemm.tune._database import Database, Record
from lowgemm.tune._measure import Runner
from lowgemm.tune._search import TaskState
from lowgemm.tune._tuner import is_gain

_ROUNDS = 60
_DETAIL, _TOTAL = "in_model", "model"

# In each round, the seconds of each step.
Rounds = list[list[float]]


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
        found = _ratio(*(seconds_of(key, *times) for times in ((default, tasks), (changed, tasks))))
        marked = replace(record, details={**record.details, _DETAIL: found})
        if is_gain(found["ratio"], found["noise"]):
            kept[key] = marked
        else:
            _take_back(marked, database)
    if kept and len(kept) < len(tuned):
        default, changed, _ = model.timed(kept)
    # Where code and constants come to lie changes other kernels' times, too: the whole must gain.
    total = _ratio([sum(steps) for steps in default], [sum(steps) for steps in changed])
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

    def timed(self, records: dict[tuple, Record]) -> tuple[Rounds, Rounds, list[KernelTask | None]]:
        """The seconds of every step in each round, without `records` and with them, and the steps' tasks."""
        configs = {key: record.config for key, record in records.items()}
        library, tasks = self._builder.model(*self._what, configs)
        assert tasks == self._tasks, "a configuration changes kernels, not their order"
        *_, threads = self._what
        default, changed = self._runner.compare_models((self._default, library), threads, _ROUNDS)
        return default, changed, tasks


def _ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    found = compare([b / a for a, b in zip(first, second, strict=True)])
    return {name: round(value, 5) for name, value in found.items()}


def _take_back(record: Record, database: Database) -> None:
    """Let `record` and all that won before it have lost to the heuristic choice."""
    for other in database.of(record.task, record.cpu):
        if other.won and other.config != default_config(record.task):
            lost = record if other.config == record.config else other
            database.amend(replace(lost, won=False))


def seconds_of(
    key: tuple, rounds: Sequence[Sequence[float]], tasks: Sequence[KernelTask | None]
) -> list[float]:
    """What all steps of one task take together, in each round."""
    own = [index for index, task in enumerate(tasks) if task is not None and task.key == key]
    return [sum(times[index] for index in own) for times in rounds]
