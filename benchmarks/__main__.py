"""`python -m benchmarks FAMILY`: time lowgemm and its peers, print rows, write a record."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from benchmarks import host, record, timing, zoo
from benchmarks.engines import PEERS

_ZOO = click.option(
    "--zoo",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=zoo.DEFAULT_DIRECTORY,
    show_default=True,
    help="Where the models are, or are built.",
)


@click.group(context_settings={"max_content_width": 100})
def main() -> None:
    """Time lowgemm beside other engines on this machine."""


@main.command()
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--filter", "pattern", default="", help="Only models with this in their name.")
@click.option(
    "--against",
    default=",".join(PEERS),
    show_default=True,
    help="Peers, separated by commas; may be empty.",
)
@click.option(
    "--state",
    type=click.Choice(["warm", "flushed"]),
    default="warm",
    show_default=True,
    help="What the caches hold before each run: the last run's data, or nothing of it.",
)
@click.option("--seconds", default=20.0, show_default=True, help="Measuring time for each row.")
@_ZOO
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a record of the run here.",
)
def models(
    threads: int,
    pattern: str,
    against: str,
    state: str,
    seconds: float,
    directory: Path,
    json_path: Path | None,
) -> None:
    """Whole models at batch 1."""
    from benchmarks import models as family

    peers = [name.strip() for name in against.split(",") if name.strip()]
    if unknown := [name for name in peers if name not in PEERS]:
        raise click.UsageError(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    names = _models(pattern)
    # Building models needs all cores, and must not happen within the measurement.
    for name in names:
        zoo.ensure(name, directory)
    host.pin(threads)
    described = host.describe()
    peak_gops = threads * max(described["dot_gops"].values())
    flush = timing.cache_flusher(max(described["caches"].values())) if state == "flushed" else None
    found = family.rows(names, threads, peers, peak_gops, seconds, state, flush, directory)
    _report(found, described, json_path)


@main.command()
@click.option("--filter", "pattern", default="", help="Only models with this in their name.")
@_ZOO
def accuracy(pattern: str, directory: Path) -> None:
    """Whole models: are the int8 results right? Nothing is timed."""
    from benchmarks import accuracy as family

    for scores in family.compare(_models(pattern), directory):
        click.echo(scores)


def _models(pattern: str) -> list[str]:
    names = [name for name in zoo.MODELS if pattern in name]
    if not names:
        raise click.UsageError(f'no model has "{pattern}" in its name')
    return names


def _report(rows: Iterable[record.Row], described: dict[str, Any], path: Path | None) -> None:
    """Print each row when it is there, then the summary; fail if lowgemm failed anywhere."""
    rates = ", ".join(f"{name} {gops:.0f} GOPS" for name, gops in described["dot_gops"].items())
    click.echo(f"{described['cpu']}, {described['level']}, one core: {rates}")
    done = []
    for row in rows:
        done.append(row)
        click.echo(record.render(row))
    click.echo(record.render_summary(record.summarize(done)))
    if path:
        record.write(path, described, done)
    if failed := [row.name for row in done if record.LOWGEMM in row.failures]:
        raise click.ClickException(f"lowgemm failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
