"""`lowgemm tune`: find the fastest configuration of each kernel of a model, and write it into a database."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lowgemm.cli._options import calibrate_option, note, shape_option, threads_option
from lowgemm.cli._tables import table


@click.command("tune", short_help="Find the fastest kernels for this CPU by measuring.")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--shapes",
    "shapes_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Tune a list of kernels instead of a model's: lines `gemm ROWS COLUMNS DEPTH` and `conv BATCH HEIGHT "
    "WIDTH IN_CHANNELS OUT_CHANNELS [kernel=3x3] [stride=1] [pad=1] [dilation=1] [groups=1]`, either with "
    "[in=uint8] [out=uint8] [residual=uint8] [count=1].",
)
@click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="host|NAME[,NAME]",
    help="Levels to tune for, which the machine that measures must run; see `lowgemm targets`.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    metavar="N",
    help="Measurements of all kernels together, those in the database counted.",
)
@click.option(
    "--tuning-db",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The database. What it holds is not measured again, so the same command goes on where it was stopped.",
)
@threads_option("Threads to tune for.")
@calibrate_option(required=False)
@shape_option
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the search.")
@click.option(
    "--rpc",
    metavar="HOST:PORT",
    help="Measure on the machines that an RPC tracker knows instead of here; see `lowgemm rpc --help`.",
)
@click.option("--key", metavar="NAME", help="The name of those machines' servers.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write a page of what the database holds; without MODEL and --shapes, do nothing else.",
)
def tune_command(
    model: Path | None,
    shapes_file: Path | None,
    target: str,
    trials: int,
    tuning_db: Path,
    threads: int | None,
    calibrate: Path | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    seed: int,
    rpc: str | None,
    key: str | None,
    report: Path | None,
) -> None:
    """Search for the fastest configuration of each distinct kernel of the ONNX file MODEL, by measuring candidates.

    Give the database to `lowgemm compile --tuning-db` afterwards. Every candidate is checked against the exact result
    before it is timed, in a process of its own, and replaces the best so far only if it is faster by more than the
    noise of the measurement.
    """
    if report is not None and (report.is_dir() or not report.parent.is_dir()):
        raise click.BadParameter(f'cannot write "{report}"', param_hint="--report")
    if model is None and shapes_file is None:
        if report is None:
            raise click.UsageError("name a MODEL, or kernels with --shapes FILE")
        if not tuning_db.is_file():
            raise click.BadParameter(f'no file "{tuning_db}"', param_hint="--tuning-db")
    else:
        results = _tune(
            model=model,
            shapes_file=shapes_file,
            tuning_db=tuning_db,
            target=target,
            trials=trials,
            threads=threads,
            calibration=_samples(calibrate),
            shapes=dict(shapes) or None,
            seed=seed,
            rpc=rpc,
            key=key,
        )
        _print(results)
    if report is not None:
        from lowgemm.tune import write_report

        write_report(report, tuning_db)
        note(f"wrote {report}")


def _samples(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    from lowgemm.frontend.quantize import load_samples

    return load_samples(path)


def _tune(trials: int, tuning_db: Path, **arguments: Any) -> list[Any]:
    from lowgemm import tune

    with _bar(trials) as advance:
        try:
            return tune(
                trials=trials, tuning_db=tuning_db, progress=advance, report=note, **arguments
            )
        except KeyboardInterrupt:
            note(f"stopped; {tuning_db} holds what was measured, and the same command goes on")
            raise


@contextmanager
def _bar(trials: int) -> Iterator[Any]:
    """A progress bar at a terminal: trials, time left, and the best time of the kernel in hand."""
    with click.progressbar(
        length=trials, label="tuning", item_show_func=_state, show_pos=True, file=sys.stderr
    ) as bar:

        def advance(progress: Any) -> None:
            bar.update(progress.done - bar.pos, progress)

        yield advance


def _state(progress: Any) -> str | None:
    if progress is None or progress.best_seconds is None:
        return None
    share = f", {progress.peak_share:.0%} of peak" if progress.peak_share else ""
    return f"{progress.task}: {1e6 * progress.best_seconds:.0f} us{share}"


def _print(results: list[Any]) -> None:
    rows = []
    for r in results:
        time = f"{1e6 * r.seconds:.1f}" if r.seconds else "-"
        numbers = (str(r.count), str(r.trials), str(r.failures), time, f"{r.gain:.3f}")
        rows.append((str(r.task), *numbers))
    head = ("kernel", "count", "trials", "failed", "us", "gain")
    for line in table(head, rows, left=1):
        click.echo(line)
    before = sum(r.count * r.seconds * r.gain for r in results if r.seconds)
    after = sum(r.count * r.seconds for r in results if r.seconds)
    if after:
        click.echo(
            f"these kernels together: {1e3 * before:.3f} ms with the heuristics' configurations, "
            f"{1e3 * after:.3f} ms tuned"
        )
