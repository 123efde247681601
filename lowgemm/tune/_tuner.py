"""The tuning loop: choose a task, propose candidates, compile, verify and time them, write each down."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lowgemm.errors import TuningError
from lowgemm.schedules import KernelTask, config_space
from lowgemm.tune._build import Builder
from lowgemm.tune._database import Database, Record
from lowgemm.tune._measure import Job, Outcome, Runner
from lowgemm.tune._search import TaskState, next_task, propose

# Candidates that are compiled together, for each process that compiles.
_BATCH = 4
_ROUNDS = 9
# A candidate that seems to win is measured again, for longer, before it is believed.
_CONFIRMING_ROUNDS = 21
# A win is larger than so many standard errors, and than what code's place in memory alone changes.
_ERRORS = 2.5
_LEAST_GAIN = 0.005


@dataclass(frozen=True)
class Progress:
    """After a trial: `done` of `total` trials; the task in hand, its best time, its share of the peak of its threads
    (None where that is not known), and the trial itself."""

    done: int
    total: int
    task: KernelTask
    best_seconds: float | None
    peak_share: float | None
    record: Record


@dataclass(frozen=True)
class TaskResult:
    """A task after tuning: seconds of its first configuration and of its best one, by their ratio."""

    task: KernelTask
    count: int
    trials: int
    failures: int
    config: Any
    seconds: float | None
    gain: float


class Tuner:
    """Tunes `tasks` (with how many kernels have each) on the machines `runners`, which have the same CPU."""

    def __init__(
        self,
        tasks: Counter[KernelTask],
        database: Database,
        runners: Sequence[Runner],
        builder: Builder,
        seed: int = 0,
    ) -> None:
        cpus = {runner.host["cpu"] for runner in runners}
        if len(cpus) != 1:
            raise TuningError(f"machines with different CPUs: {', '.join(sorted(cpus))}")
        (self._cpu,) = cpus
        self._tasks = tasks
        self._spaces = {task: config_space(task) for task in tasks}
        self._database, self._runners, self._builder, self._seed = database, runners, builder, seed
        self._incumbents: dict[KernelTask, tuple[Any, Path]] = {}
        self._details = {"versions": _versions()}
        self._peaks: dict[str, float | None] = {}

    def run(self, trials: int, progress: Callable[[Progress], None] | None = None) -> None:
        """Measure until the database holds `trials` trials of these tasks on this CPU, or no task is left open."""
        batch = _BATCH * max(2, len(self._runners))
        while (done := sum(len(state.trials) for state in self.states())) < trials:
            state = next_task(self.states())
            if state is None:
                return
            count = min(batch, trials - done)
            configs = propose(state, self._database.records, self._seed, count)
            before = self._database.of(state.task, self._cpu)
            self._measure_all(state.task, configs, done, trials, progress)
            if len(self._database.of(state.task, self._cpu)) == len(before):
                raise TuningError(f"no trial of {state.task} could be recorded")

    def states(self) -> list[TaskState]:
        """Where every task stands, by what the database holds now."""
        self._database.refresh()
        return [
            TaskState(task, count, self._spaces[task], self._database.of(task, self._cpu))
            for task, count in self._tasks.items()
        ]

    def results(self) -> list[TaskResult]:
        """What was found, the task with the most time first."""
        results = []
        for state in sorted(self.states(), key=lambda s: -s.weight):
            best = state.incumbent
            failures = sum(r.failure is not None for r in state.trials)
            found = (best.config, best.seconds, best.relative) if best else (None, None, 1.0)
            config, seconds, relative = found
            numbers = (len(state.trials), failures, config, seconds, 1 / (relative or 1.0))
            results.append(TaskResult(state.task, state.count, *numbers))
        return results

    def _measure_all(self, task, configs, done, total, progress) -> None:
        libraries = self._builder.build(task, configs)
        waiting: queue.SimpleQueue[tuple[Any, Path | str]] = queue.SimpleQueue()
        for item in zip(configs, libraries, strict=True):
            waiting.put(item)
        lock, errors, written = threading.Lock(), [], Counter[str]()

        def work(runner: Runner) -> None:
            while not errors:
                try:
                    config, library = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    record = self._trial(task, config, library, runner, lock)
                    with lock:
                        if self._database.append(record):
                            written["trials"] += 1
                            if progress:
                                count = done + written["trials"]
                                progress(self._progress(count, total, record, runner))
                except Exception as error:
                    errors.append(error)

        if len(self._runners) == 1:
            work(self._runners[0])  # in this thread, so that Ctrl-C stops it
        else:
            threads = [threading.Thread(target=work, args=(r,)) for r in self._runners]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    def _trial(
        self, task: KernelTask, config: Any, library: Path | str, runner: Runner, lock: Any
    ) -> Record:
        """Measure one candidate beside the incumbent."""
        with lock:
            best = self._state(task).incumbent
            incumbent = None
            if best is not None and not isinstance(library, str):
                incumbent = self._library(task, best.config)
        if isinstance(library, str):
            return self._record(task, config, runner, Outcome(library), best)
        job = Job(library, incumbent, self._builder.data(task), task.threads, _ROUNDS)
        outcome = runner.measure(job)
        if incumbent is not None and _wins(outcome):
            job = Job(library, incumbent, job.data, task.threads, _CONFIRMING_ROUNDS)
            outcome = runner.measure(job)
        record = self._record(task, config, runner, outcome, best)
        with lock:
            if record.won:
                self._incumbents[task] = (config, library)
            elif library != incumbent:
                library.unlink(missing_ok=True)
        return record

    def _record(
        self, task: KernelTask, config: Any, runner: Runner, outcome: Outcome, best: Record | None
    ) -> Record:
        details = {
            **self._details,
            "host": {"node": runner.host["node"], "features": runner.host["features"]},
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if outcome.failure is not None:
            return Record(task, config, self._cpu, failure=outcome.failure, details=details)
        details["times"] = {
            "candidate": [float(f"{s:.4g}") for s in outcome.candidate],
            "incumbent": [float(f"{s:.4g}") for s in outcome.incumbent],
        }
        seconds = sorted(outcome.candidate)[len(outcome.candidate) // 2]
        if best is None:
            relative, won = 1.0, True
        else:
            relative, won = (best.relative or 1.0) * outcome.ratio, _wins(outcome)
        return Record(task, config, self._cpu, seconds, relative, outcome.noise, won, None, details)

    def _library(self, task: KernelTask, config: Any) -> Path:
        """The library of the incumbent, made again if this is another run than the one that found it."""
        known = self._incumbents.get(task)
        if known is None or known[0] != config:
            (library,) = self._builder.build(task, [config])
            if isinstance(library, str):
                raise TuningError(f"{task}: {config}, the best in the database, fails: {library}")
            self._incumbents[task] = (config, library)
        return self._incumbents[task][1]

    def _state(self, task: KernelTask) -> TaskState:
        trials = self._database.of(task, self._cpu)
        return TaskState(task, self._tasks[task], self._spaces[task], trials)

    def _progress(self, done: int, total: int, record: Record, runner: Runner) -> Progress:
        task, share = record.task, None
        best = self._state(task).incumbent
        seconds = best and best.seconds
        level = task.target.level
        if level not in self._peaks:
            self._peaks[level] = runner.peak(level)
        if seconds and (peak := self._peaks[level]):
            share = 2e-9 * task.shape.macs / seconds / (peak * task.threads)
        return Progress(done, total, task, seconds, share, record)


def _wins(outcome: Outcome) -> bool:
    """Whether the candidate beat the incumbent by more than the measured noise."""
    return outcome.failure is None and is_gain(outcome.ratio, outcome.noise)


def is_gain(ratio: float, noise: float) -> bool:
    """Whether a ratio of times with the standard error `noise` is a gain."""
    return ratio < 1 - max(_ERRORS * noise, _LEAST_GAIN)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("lowgemm", "apache-tvm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
