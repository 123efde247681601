"""Whole spaces of configurations, measured: what the tuner's search and the default heuristics are judged by.

`python -m benchmarks.tuning_spaces measure` measures every configuration of some tasks, each in turns with the default
one, and those again that may be the best, into a record; `judge` reads it and says how many trials the ranker and
random search need, and how far the default configurations are from the best.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import host, record
from lowgemm import targets
from lowgemm.packing import ConvShape
from lowgemm.schedules import (
    FAMILIES,
    KernelTask,
    config_from_json,
    config_space,
    default_config,
    task_from_json,
    task_to_json,
)
from lowgemm.tune._build import Builder, default_jobs
from lowgemm.tune._database import Record
from lowgemm.tune._measure import Job, LocalRunner, Runner
from lowgemm.tune._search import TaskState, propose

_BATCH = 16
_ROUNDS = 7
_LONG_ROUNDS = 21
_PROMISING = 1.06
_MOST_AGAIN = 40
_DISTURBED = 0.05
# What is asked of the ranker: a configuration of 97% of the best one's speed; of the defaults: within 7% of its time.
_GOOD = 0.97
_GOOD_DEFAULT = 1.07
_PROPOSED = 4
_SAME = (1, 1, 1, 1)
# Of ResNet-50, mobile networks, and FBGEMM's benchmarks: large and small images, first and last layers, few and many
# channels, groups, and a matrix product.
_CONVOLUTIONS = (
    ConvShape(1, 56, 56, 64, 64, (3, 3), padding=_SAME),
    ConvShape(1, 56, 56, 64, 256, (1, 1)),
    ConvShape(1, 28, 28, 128, 128, (3, 3), padding=_SAME),
    ConvShape(1, 14, 14, 256, 256, (3, 3), padding=_SAME),
    ConvShape(1, 7, 7, 512, 512, (3, 3), padding=_SAME),
    ConvShape(1, 1, 196, 256, 1024, (1, 1)),
    ConvShape(1, 224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3)),
    ConvShape(1, 28, 28, 256, 256, (3, 3), padding=_SAME, groups=32),
    ConvShape(1, 1, 49, 960, 160, (1, 1)),
    ConvShape(1, 1, 64, 320, 800, (1, 1)),
)
_DEPTHWISE = (
    ConvShape(1, 56, 56, 144, 144, (3, 3), padding=_SAME, groups=144),
    ConvShape(1, 14, 14, 384, 384, (5, 5), padding=(2, 2, 2, 2), groups=384),
)


def tasks() -> Iterator[KernelTask]:
    """The tasks to judge by, on one thread of this host."""
    target = targets.host()
    for family, shapes in (("qconv2d", _CONVOLUTIONS), ("qdepthwise2d", _DEPTHWISE)):
        for shape in shapes:
            yield KernelTask(family, shape, "uint8", "uint8", None, target, 1)


class Space:
    """Every configuration of a task with its time over the default's and the standard error of that, or its failure."""

    def __init__(self, task: KernelTask, rows: dict[Any, list[Any]] | None = None) -> None:
        self.task = task
        self.rows: dict[Any, list[Any]] = rows or {}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Space":
        task = task_from_json(data["task"])
        knobs = len(data["knobs"])
        rows = {
            config_from_json(task, dict(zip(data["knobs"], row[:knobs], strict=True))): row[knobs:]
            for row in data["rows"]
        }
        return Space(task, rows)

    def render(self) -> str:
        """JSON, a configuration a line."""
        knobs = [field.name for field in fields(FAMILIES[self.task.family].config)]
        rows = ",\n".join(json.dumps([*astuple(c), *row]) for c, row in self.rows.items())
        head = f'"task": {json.dumps(task_to_json(self.task))},\n"knobs": {json.dumps(knobs)}'
        return f'{{{head},\n"rows": [\n{rows}\n]}}'

    @property
    def times(self) -> dict[Any, float]:
        """Of those that worked, relative to the default."""
        return {config: row[0] for config, row in self.rows.items() if len(row) == 2}

    @property
    def known(self) -> dict[Any, float]:
        """`times` without those that were disturbed both times they were measured; the default is always there."""
        default = default_config(self.task)
        return {
            config: time
            for config, time in self.times.items()
            if config == default or self.rows[config][1] <= _DISTURBED
        }

    def measure(self, configs: list[Any], rounds: int, builder: Builder, runner: Runner) -> None:
        """Measure `configs`, each in turns with the default."""
        (reference,) = builder.build(self.task, [default_config(self.task)])
        if isinstance(reference, str):
            raise click.ClickException(f"{self.task}: the default fails: {reference}")
        data = builder.data(self.task)
        for start in range(0, len(configs), _BATCH):
            batch = configs[start : start + _BATCH]
            for config, library in zip(batch, builder.build(self.task, batch), strict=True):
                if isinstance(library, str):
                    self.rows[config] = [library]
                    continue
                job = Job(library, reference, data, self.task.threads, rounds)
                outcome = runner.measure(job)
                library.unlink()
                measured = [round(outcome.ratio, 5), round(outcome.noise, 5)]
                self.rows[config] = [outcome.failure] if outcome.failure else measured

    def measure_again(self, rounds: int, builder: Builder, runner: Runner) -> int:
        """Measure those for longer that may be the best, and the default; returns how many.

        The default may be another one than at the first time: what is not measured again is scaled as the median of
        what is.
        """
        before = self.times
        chosen = self._promising()
        self.measure(chosen, rounds, builder, runner)
        after = self.times
        scale = float(np.median([after[c] / before[c] for c in chosen if c in after]))
        for config in before.keys() - {*chosen}:
            self.rows[config][0] = round(self.rows[config][0] * scale, 5)
        self.measure([default_config(self.task)], rounds, builder, runner)
        return len(chosen)

    def _promising(self) -> list[Any]:
        """What may be the best, by one measurement that an unlucky moment could have changed."""
        times = self.times
        ordered = sorted(times, key=lambda config: times[config])
        least = times[ordered[len(ordered) // 50]]
        disturbed = [c for c in ordered if self.rows[c][1] > _DISTURBED]
        return [*{*[c for c in ordered[:_MOST_AGAIN] if times[c] < _PROMISING * least], *disturbed}]


_record_option = click.option(
    "--record",
    "path",
    type=click.Path(path_type=Path),
    default=record.DIRECTORY / "tuning-spaces.json",
    show_default=True,
)


@click.group()
def main() -> None:
    """Judge the tuner by spaces that were measured in full."""


@main.command()
@_record_option
def measure(path: Path) -> None:
    """Measure every configuration of all tasks; takes half an hour."""
    described, spaces = host.describe(), []
    with _machine() as (builder, runner):
        for task in tasks():
            space = Space(task)
            space.measure(config_space(task), _ROUNDS, builder, runner)
            spaces.append(space)
            click.echo(f"{task}: {len(space.rows)} configurations")
            path.write_text(_render(described, spaces))
    _refine(path)


@main.command()
@_record_option
def refine(path: Path) -> None:
    """Measure those again, for longer, that may be the best."""
    _refine(path)


def _refine(path: Path) -> None:
    record = json.loads(path.read_text())
    spaces = [Space.from_json(data) for data in record["spaces"]]
    with _machine() as (builder, runner):
        for space in spaces:
            count = space.measure_again(_LONG_ROUNDS, builder, runner)
            click.echo(f"{space.task}: {count} configurations again")
            path.write_text(_render(record["host"], spaces))


@contextmanager
def _machine() -> Iterator[tuple[Builder, LocalRunner]]:
    with tempfile.TemporaryDirectory(prefix="lowgemm-spaces-") as folder:
        builder, runner = Builder(Path(folder), default_jobs()), LocalRunner()
        try:
            yield builder, runner
        finally:
            builder.close()
            runner.close()


def _render(described: dict[str, Any], spaces: list[Space]) -> str:
    parts = ",\n".join(space.render() for space in spaces)
    return f'{{"host": {json.dumps(described, indent=1)},\n"spaces": [\n{parts}\n]}}\n'


@main.command()
@_record_option
@click.option("--seeds", default=5, show_default=True)
def judge(path: Path, seeds: int) -> None:
    """Say how many trials the ranker and random search need, and how far the defaults are from the best."""
    spaces = [Space.from_json(data) for data in json.loads(path.read_text())["spaces"]]
    click.echo(f"trials until within {1 - _GOOD:.0%} of the best; median of {seeds} seeds")
    good_defaults = 0
    for space in spaces:
        times = space.known
        best = min(times.values())
        default = times[default_config(space.task)] / best
        good_defaults += default <= _GOOD_DEFAULT
        cold = [trials_needed(space, seed, []) for seed in range(seeds)]
        others = [r for other in spaces if other is not space for r in records_of(other, 40)]
        warm = [trials_needed(space, seed, others) for seed in range(seeds)]
        drawn = [random_trials_needed(space, seed) for seed in range(20 * seeds)]
        ranked, tenth = float(np.median(cold)), len(times) / 10
        click.echo(
            f"{space.task}: {len(times)} configurations, a tenth is {tenth:.0f}; ranker {ranked:.0f}, warm "
            f"{np.median(warm):.0f}, random {np.median(drawn):.0f}; default {default:.3f} of the best"
        )
    click.echo(
        f"defaults within {_GOOD_DEFAULT - 1:.0%} of the best: {good_defaults} of {len(spaces)}"
    )


def records_of(space: Space, count: int) -> list[Record]:
    """Some of a space as a database would hold them."""
    rng = np.random.default_rng(0)
    times = space.known
    configs = [list(times)[i] for i in rng.permutation(len(times))[:count]]
    return [Record(space.task, c, "host", times[c], times[c], 0.0, True) for c in configs]


def trials_needed(space: Space, seed: int, others: list[Record]) -> int:
    """Trials of the tuner's search, the default one counted, until one is good."""
    times = space.known
    goal = min(times.values()) / _GOOD
    trials: list[Record] = []
    while len(trials) < len(times):
        state = TaskState(space.task, 1, list(times), trials)
        for config in propose(state, [*others, *trials], seed, _PROPOSED):
            time = times[config]
            if time <= goal:
                return len(trials) + 1
            first = trials[0].seconds or time if trials else time
            won = time <= min((r.seconds or 0 for r in trials), default=time)
            trials.append(Record(space.task, config, "host", time, time / first, 0.0, won))
    return len(trials)


def random_trials_needed(space: Space, seed: int) -> int:
    """The same where the default comes first and then configurations are drawn at random."""
    times = space.known
    goal = min(times.values()) / _GOOD
    default = default_config(space.task)
    rest = [config for config in times if config != default]
    order = [default, *(rest[i] for i in np.random.default_rng(seed).permutation(len(rest)))]
    return next(number for number, config in enumerate(order, 1) if times[config] <= goal)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.tuning_spaces")
