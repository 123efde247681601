"""Measuring candidates on this machine."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lowgemm.errors import TargetError, TuningError
from lowgemm.tune import _host
from lowgemm.tune._worker import Json, Worker, WorkerFailure

# Beside what its model takes, a kernel needs its stage and a few buffers.
_LIMIT_BYTES = 1 << 30
_LIMIT_SECONDS = 20.0
_MODEL_SECONDS, _MODEL_BYTES = 300.0, 8 << 30
# Numpy's threads would be in the way, and do nothing here.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Of two models: in each round, the seconds of each step.
ModelTimes = list[list[list[float]]]


@dataclass(frozen=True)
class Job:
    """A candidate to verify against `data` and to time in turns with the incumbent, or with itself if there is none.

    `seconds` and `memory` (bytes) are limits.
    """

    candidate: Path
    incumbent: Path | None
    data: Path
    threads: int
    rounds: int
    seconds: float = _LIMIT_SECONDS
    memory: int = _LIMIT_BYTES


@dataclass(frozen=True)
class Outcome:
    """The seconds of both in each round, the ratio of candidate to incumbent and its standard error; or the failure."""

    failure: str | None
    candidate: tuple[float, ...] = ()
    incumbent: tuple[float, ...] = ()
    ratio: float = 0.0
    noise: float = 0.0


class Runner(Protocol):
    """A machine that measures. `host` describes it as a record has it."""

    host: dict[str, Any]

    def measure(self, job: Job) -> Outcome:
        """Verify and time a candidate; whatever it does, there is an outcome.

        Raises:
            TuningError: the machine cannot be reached any more.
        """
        ...

    def compare_models(self, models: tuple[Path, Path], threads: int, rounds: int) -> ModelTimes:
        """Time the steps of two models in turns, in a process of its own.

        Raises:
            TuningError: a model cannot be run, or the machine cannot be reached any more.
        """
        ...

    def peak(self, level: str) -> float | None:
        """The most GOPS that one core reaches with the level's dot products; None if that cannot be measured."""
        ...

    def close(self) -> None:
        """Let the machine go."""
        ...


class LocalRunner:
    """Measures on this machine, in a child process for each job."""

    def __init__(self) -> None:
        self.host = _host.describe()
        self._worker = Worker("lowgemm.tune._child", _ENVIRONMENT)

    def measure(self, job: Job) -> Outcome:
        request = {
            "candidate": str(job.candidate),
            "incumbent": str(job.incumbent or ""),
            "data": str(job.data),
            "threads": job.threads,
            "rounds": job.rounds,
            "seconds": job.seconds,
            "bytes": job.memory,
        }
        try:
            # The process that supervises keeps the limit; a little more is for its start.
            return outcome_of(self._worker.call(request, job.seconds + 30))
        except WorkerFailure as failure:
            return Outcome(f"measuring: {failure}")

    def compare_models(self, models: tuple[Path, Path], threads: int, rounds: int) -> ModelTimes:
        limits = {"seconds": _MODEL_SECONDS, "bytes": _MODEL_BYTES}
        request = {"models": [*map(str, models)], "threads": threads, "rounds": rounds, **limits}
        try:
            answer = self._worker.call(request, _MODEL_SECONDS + 30)
        except WorkerFailure as failure:
            raise TuningError(f"the model cannot be timed: {failure}") from failure
        if answer["failure"] is not None:
            raise TuningError(f"the model cannot be timed: {answer['failure']}")
        return answer["steps"]

    def peak(self, level: str) -> float | None:
        return peak_gops(level)

    def close(self) -> None:
        self._worker.close()


@functools.cache
def peak_gops(level: str) -> float | None:
    """The most GOPS that a core of this machine reaches; None where no C compiler is there to measure it."""
    from lowgemm.targets.peak import measure_peak

    try:
        return measure_peak(level)
    except TargetError:
        return None


def outcome_of(answer: Json) -> Outcome:
    """What `_child.answer` returned."""
    if answer["failure"] is not None:
        return Outcome(answer["failure"])
    times = (tuple(answer["candidate"]), tuple(answer["incumbent"]))
    return Outcome(None, *times, answer["ratio"], answer["noise"])
