"""The last word on what was found: the model itself, with heuristic and with tuned kernels, timed step by step.

A kernel alone is not a kernel in a model: what the caches hold, and what the CPU does before, differ. A configuration
that is not faster there, too, by more than the noise, does not count as a win any more.
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
_DETAIL = "in_model"


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
    configs = {key: record.config for key, record in tuned.items()}
    libraries, tasks = zip(
        *(builder.model(graph, level, threads, c) for c in ({}, configs)), strict=True
    )
    times = runner.compare_models((libraries[0], libraries[1]), threads, _ROUNDS)
    for key, record in tuned.items():
        first, second = (seconds_of(key, s, t) for s, t in zip(times, tasks, strict=True))
        found = compare([b / a for a, b in zip(first, second, strict=True)])
        details = {_DETAIL: {name: round(value, 5) for name, value in found.items()}}
        if is_gain(found["ratio"], found["noise"]):
            database.amend(replace(record, details={**record.details, **details}))
            continue
        for other in database.of(record.task, record.cpu):
            if other.won and other.config != default_config(record.task):
                database.amend(_lost(other, details if other == record else {}))


def seconds_of(
    key: tuple, rounds: Sequence[Sequence[float]], tasks: Sequence[KernelTask | None]
) -> list[float]:
    """What all steps of one task take together, in each round."""
    own = [index for index, task in enumerate(tasks) if task is not None and task.key == key]
    return [sum(times[index] for index in own) for times in rounds]


def _lost(record: Record, details: dict) -> Record:
    return replace(record, won=False, details={**record.details, **details})
