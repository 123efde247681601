"""Spaces of configurations, measured: what the tuner's search and the default heuristics are judged by.

    python -m benchmarks.tuning_spaces compile FOLDER     every configuration of some tasks, as a library
    python -m benchmarks.tuning_spaces measure FOLDER     each in turns with the default one, into a record
    python -m benchmarks.tuning_spaces judge              trials of the ranker and of random search; the defaults

The first two stop after `--seconds` and go on where they stopped, so that measuring needs a quiet machine for minutes
only. With `--held-out` they take samples of the spaces of other layers, drawn from FBGEMM's benchmarks, and judge the
defaults by these.
"""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import RECORDS, ROOT, layers
from lowgemm import targets
from lowgemm.bench import host
from lowgemm.packing import ConvShape
from lowgemm.schedules import (
    FAMILIES,
    KernelTask,
    config_from_json,
    config_space,
    config_to_json,
    default_config,
    task_from_json,
    task_to_json,
)
from lowgemm.tune._build import Builder, default_jobs
from lowgemm.tune._database import Record
from lowgemm.tune._extract import tasks_of_shapes
from lowgemm.tune._measure import Job, LocalRunner
from lowgemm.tune._search import TaskState, propose

_BATCH = 16
_ROUNDS = 7
# What may be the best is measured again, for longer: what comes so near to it, or was disturbed.
_LONG_ROUNDS = 41
_PROMISING = 1.05
_MOST_AGAIN = 40
_DISTURBED = 0.05
# What is asked of the ranker: a configuration of 97% of the best one's speed within a tenth of the space, and within
# half of the trials that drawing at random takes; of the defaults: within 7% of the best time.
_GOOD = 0.97
_SHARE_OF_SPACE = 0.1
_SHARE_OF_RANDOM = 0.5
_GOOD_DEFAULT = 1.07
# As many as the tuner proposes at a time on one machine.
_PROPOSED = 8
_RANDOM_SEEDS = 200
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
# Held out: so many layers of each of FBGEMM's lists, with or without groups, and configurations of each. Larger layers
# would take long to measure.
_HELD_OUT = {("gemm", False): 4, ("conv", False): 2, ("conv", True): 2, ("depthwise", True): 2}
_HELD_OUT_MACS = (2_000_000, 600_000_000)
_SAMPLE = 40
_HELD_OUT_LISTS = (
    *("gemms_default", "acc32", "acc16_resnet50"),
    *("unified_2d", "groupwise_requantize", "im2col_fused", "depthwise_2d"),
)


def full_tasks() -> Iterator[KernelTask]:
    """The tasks whose spaces are measured in full, on one thread of this host."""
    target = targets.host()
    for family, shapes in (("qconv2d", _CONVOLUTIONS), ("qdepthwise2d", _DEPTHWISE)):
        for shape in shapes:
            yield KernelTask(family, shape, "uint8", "uint8", None, target, 1)


def held_out_tasks() -> Iterator[KernelTask]:
    """Tasks that are drawn from the benchmarks' layers, the same at every call."""
    rng = np.random.default_rng(0)
    least, most = _HELD_OUT_MACS
    fitted = {task.shape for task in full_tasks()}
    for (family, grouped), count in _HELD_OUT.items():
        known = (x for x in layers.family(family) if x.name in _HELD_OUT_LISTS and not x.transposed)
        allowed = [x for x in known if (x.groups > 1) == grouped]
        tasks = [_task_of(layer) for layer in allowed if least <= layer.macs <= most]
        tasks = [task for task in tasks if task.shape not in fitted]
        yield from (tasks[index] for index in rng.permutation(len(tasks))[:count])


def _task_of(layer: layers.Layer) -> KernelTask:
    if layer.is_gemm:
        line = f"gemm {layer.batch} {layer.out_channels} {layer.in_channels}"
    else:
        line = (
            f"conv {layer.batch} {layer.sizes[0]} {layer.sizes[1]} {layer.in_channels} {layer.out_channels} "
            f"kernel={layer.kernel[0]}x{layer.kernel[1]} stride={layer.strides[0]} pad={layer.pads[0]} "
            f"dilation={layer.dilations[0]} groups={layer.groups}"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(line)
        file.flush()
        (task,) = tasks_of_shapes(Path(file.name), [targets.host()], 1)
    return task


def chosen_configs(task: KernelTask, held_out: bool) -> list[Any]:
    """The configurations to measure: the whole space, or, held out, a sample of it; the default first."""
    chosen = config_space(task)
    if held_out:
        rng = np.random.default_rng(0)
        chosen = [chosen[index] for index in rng.permutation(len(chosen))[:_SAMPLE]]
    return [*dict.fromkeys([default_config(task), *chosen])]


class Space:
    """Configurations of a task with their times, each as measured in turns with `reference`.

    A row is the time over the reference's, the standard error of that and the rounds; or the failure.
    """

    def __init__(
        self, task: KernelTask, reference: Any, rows: dict[Any, list[Any]] | None = None
    ) -> None:
        self.task, self.reference = task, reference
        self.rows: dict[Any, list[Any]] = rows or {}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Space":
        task = task_from_json(data["task"])
        knobs = len(data["knobs"])
        rows = {
            config_from_json(task, dict(zip(data["knobs"], row[:knobs], strict=True))): row[knobs:]
            for row in data["rows"]
        }
        return Space(task, config_from_json(task, data["reference"]), rows)

    def render(self) -> str:
        """JSON, a configuration a line."""
        knobs = [field.name for field in fields(FAMILIES[self.task.family].config)]
        rows = ",\n".join(json.dumps([*astuple(c), *row]) for c, row in self.rows.items())
        head = (
            f'"task": {json.dumps(task_to_json(self.task))},\n'
            f'"reference": {json.dumps(config_to_json(self.reference))},\n'
            f'"knobs": {json.dumps(knobs)}'
        )
        return f'{{{head},\n"rows": [\n{rows}\n]}}'

    @property
    def times(self) -> dict[Any, float]:
        """Of those that worked, relative to the reference."""
        return {config: row[0] for config, row in self.rows.items() if len(row) > 1}

    @cached_property
    def known(self) -> dict[Any, float]:
        """`times` without those that were disturbed both times they were measured; the default is always there."""
        default = default_config(self.task)
        return {
            config: time
            for config, time in self.times.items()
            if config == default or self.rows[config][1] <= _DISTURBED
        }

    @property
    def default(self) -> float:
        """The time of today's default configuration over the best one's; infinite if it was not measured."""
        known = self.known
        return known.get(default_config(self.task), math.inf) / min(known.values())

    def again(self) -> list[Any]:
        """What may be the best, by one measurement that an unlucky moment could have changed; the default, too."""
        times = self.times
        ordered = sorted(times, key=lambda config: times[config])
        least = times[ordered[len(ordered) // 50]]
        near = [c for c in ordered[:_MOST_AGAIN] if times[c] < _PROMISING * least]
        disturbed = [c for c in ordered if self.rows[c][1] > _DISTURBED]
        candidates = [*{*near, *disturbed, default_config(self.task)}]
        return [c for c in candidates if c in times and self.rows[c][2] < _LONG_ROUNDS]


_held_out_option = click.option("--held-out", is_flag=True, help="Samples of other layers' spaces.")
_record_option = click.option(
    "--record",
    "path",
    type=click.Path(path_type=Path),
    help="By default benchmarks/records/tuning-spaces.json, or tuning-held-out.json.",
)
_seconds_option = click.option("--seconds", default=float("inf"), help="Stop after so many.")


def _record_path(path: Path | None, held_out: bool) -> Path:
    return path or RECORDS / f"tuning-{'held-out' if held_out else 'spaces'}.json"


@click.group()
def main() -> None:
    """Judge the tuner by spaces that were measured."""


def _library(folder: Path, task: KernelTask, config: Any) -> Path:
    """Where the library of a configuration is, or, with the ending .txt, the reason that there is none."""
    return folder / f"{_digest(task_to_json(task), config_to_json(config))}.so"


def _data(folder: Path, task: KernelTask) -> Path:
    """Where what a task's kernels are verified by is."""
    return folder / f"{_digest(task_to_json(task))}.npz"


def _digest(*parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@main.command("compile")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_held_out_option
@_seconds_option
def compile_command(folder: Path, held_out: bool, seconds: float) -> None:
    """Compile the configurations into FOLDER, which takes half an hour, and gigabytes."""
    end = time.monotonic() + seconds
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        builder = Builder(Path(scratch), default_jobs())
        try:
            for task in held_out_tasks() if held_out else full_tasks():
                if not (data := _data(folder, task)).exists():
                    builder.data(task).rename(data)
                missing = [
                    config
                    for config in chosen_configs(task, held_out)
                    if not any(
                        _library(folder, task, config).with_suffix(ending).exists()
                        for ending in (".so", ".txt")
                    )
                ]
                for start in range(0, len(missing), _BATCH):
                    if time.monotonic() > end:
                        raise SystemExit(f"{task}: {len(missing) - start} are missing")
                    batch = missing[start : start + _BATCH]
                    for config, built in zip(batch, builder.build(task, batch), strict=True):
                        path = _library(folder, task, config)
                        if isinstance(built, str):
                            path.with_suffix(".txt").write_text(built)
                        else:
                            built.rename(path)
                click.echo(f"{task}: compiled")
        finally:
            builder.close()


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@_held_out_option
@_record_option
@_seconds_option
def measure(folder: Path, held_out: bool, path: Path | None, seconds: float) -> None:
    """Measure what is in FOLDER and not in the record yet, then what may be the best once more, for longer."""
    end, path = time.monotonic() + seconds, _record_path(path, held_out)
    if path.exists():
        described, spaces = _read(path)
    else:
        described, spaces = host.describe(1, ROOT), []
    tasks = list(held_out_tasks() if held_out else full_tasks())
    known = {space.task.key for space in spaces}
    spaces += [Space(task, default_config(task)) for task in tasks if task.key not in known]
    runner = LocalRunner()
    try:
        for rounds in (_ROUNDS, _LONG_ROUNDS):
            for space in spaces:
                if rounds == _ROUNDS:
                    wanted = chosen_configs(space.task, held_out)
                    wanted = [config for config in wanted if config not in space.rows]
                else:
                    wanted = space.again()
                for config in wanted:
                    if time.monotonic() > end:
                        raise SystemExit(f"{space.task}: to be gone on with")
                    space.rows[config] = _measured(folder, space, config, rounds, runner)
                if wanted:
                    click.echo(f"{space.task}: {len(wanted)} configurations, {rounds} rounds")
    finally:
        runner.close()
        path.write_text(_render(described, [space for space in spaces if space.rows]))
    click.echo("all is measured")


def _measured(
    folder: Path, space: Space, config: Any, rounds: int, runner: LocalRunner
) -> list[Any]:
    library = _library(folder, space.task, config)
    if (reason := library.with_suffix(".txt")).exists():
        return [reason.read_text()]
    if not library.exists():
        raise click.ClickException(f"{config} of {space.task} is not in {folder}: compile first")
    reference = _library(folder, space.task, space.reference)
    job = Job(library, reference, _data(folder, space.task), space.task.threads, rounds)
    outcome = runner.measure(job)
    if outcome.failure:
        return [outcome.failure]
    return [round(outcome.ratio, 5), round(outcome.noise, 5), rounds]


def _read(path: Path) -> tuple[dict[str, Any], list[Space]]:
    content = json.loads(path.read_text())
    return content["host"], [Space.from_json(data) for data in content["spaces"]]


def _render(
    described: dict[str, Any], spaces: list[Space], judged: dict[str, Any] | None = None
) -> str:
    parts = ",\n".join(space.render() for space in spaces)
    head = f'"host": {json.dumps(described, indent=1)},\n"judged": {json.dumps(judged, indent=1)}'
    return f'{{{head},\n"spaces": [\n{parts}\n]}}\n'


@main.command()
@_held_out_option
@_record_option
@click.option("--seeds", default=5, show_default=True)
def judge(held_out: bool, path: Path | None, seeds: int) -> None:
    """Say how many trials the ranker and random search need, and how far the defaults are from the best.

    Writes it into the record, too. Of samples, the defaults alone are judged.
    """
    path = _record_path(path, held_out)
    described, spaces = _read(path)
    rows = []
    for space in spaces:
        row: dict[str, Any] = {"task": str(space.task), "configurations": len(space.known)}
        if not held_out:
            others = [r for other in spaces if other is not space for r in records_of(other, 40)]
            row |= _searched(space, others, seeds)
        row["default"] = round(space.default, 3)
        row["default_holds"] = space.default <= _GOOD_DEFAULT
        click.echo(json.dumps(row))
        rows.append(row)
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key.endswith("holds")}
    click.echo(f"of {len(rows)}: {json.dumps(total)}")
    judged = {"commit": host.commit(ROOT), "seeds": seeds, "rows": rows, "total": total}
    path.write_text(_render(described, spaces, judged))


def _searched(space: Space, others: list[Record], seeds: int) -> dict[str, Any]:
    """Medians of the trials that it takes: the ranker cold, or warm with the records `others`, and random search."""
    cold, warm = (
        float(np.median([trials_needed(space, seed, known) for seed in range(seeds)]))
        for known in ([], others)
    )
    drawn = float(np.median([random_trials_needed(space, s) for s in range(_RANDOM_SEEDS)]))
    most = min(_SHARE_OF_SPACE * len(space.known), _SHARE_OF_RANDOM * drawn)
    return {
        "random_trials": drawn,
        "allowed_trials": round(most, 1),
        "ranker_trials": cold,
        "ranker_holds": cold <= most,
        "warm_trials": warm,
        "warm_holds": warm <= most,
    }


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
            taken = times[config]
            if taken <= goal:
                return len(trials) + 1
            first = trials[0].seconds or taken if trials else taken
            won = taken <= min((r.seconds or 0 for r in trials), default=taken)
            trials.append(Record(space.task, config, "host", taken, taken / first, 0.0, won))
    return len(trials)


def random_trials_needed(space: Space, seed: int) -> int:
    """The same of configurations that are drawn at random."""
    times = [*space.known.values()]
    order = np.random.default_rng(seed).permutation(len(times))
    goal = min(times) / _GOOD
    return next(number for number, index in enumerate(order, 1) if times[index] <= goal)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.tuning_spaces")
