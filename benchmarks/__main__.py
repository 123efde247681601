"""`python -m benchmarks FAMILY`: time lowgemm and its peers, print rows, write a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import RECORDS, ROOT, families, zoo
from benchmarks.families import FAMILIES
from lowgemm import targets
from lowgemm.bench import host, record
from lowgemm.errors import LowgemmError

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_ZOO = click.option(
    "--zoo",
    "directory",
    type=_FOLDER,
    default=zoo.DEFAULT_DIRECTORY,
    show_default=True,
    help="Where the models are, or are built.",
)
_FILTER = click.option(
    "--filter", "pattern", default="", help="Only rows with this in their name or shape."
)
_THREADS = click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
_STATE = click.option(
    "--state",
    type=click.Choice(host.STATES),
    default="warm",
    show_default=True,
    help="What the caches hold before each run: the last run's data, or nothing of it.",
)


class _Commands(click.Group):
    """Says what is wrong with arguments, files or the machine in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LowgemmError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"max_content_width": 100})
def main() -> None:
    """Time lowgemm beside other engines on this machine."""


def _family(name: str) -> None:
    family = FAMILIES[name]

    def parse(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if unknown := [name for name in names if name not in family.peers]:
            text = f"no peer {', '.join(unknown)}; there are {', '.join(family.peers)}"
            raise click.BadParameter(text)
        return names

    @main.command(name, help=family.title)
    @_THREADS
    @_FILTER
    @click.option(
        "--against",
        default=",".join(family.peers),
        show_default=True,
        callback=parse,
        help="Peers, separated by commas; may be empty.",
    )
    @_STATE
    @click.option(
        "--seconds",
        default=family.seconds,
        show_default=True,
        help="Measuring time for each row.",
    )
    @click.option("--json", "path", type=_FILE, help="Write a record, anew after each row.")
    @click.option("--resume", is_flag=True, help="Keep the rows that the record holds already.")
    @click.option(
        "--fewer",
        type=_FILE,
        help="A record of the same on fewer threads: each row then says how it scales.",
    )
    @_ZOO
    def command(
        threads: int,
        pattern: str,
        against: list[str],
        state: str,
        seconds: float,
        path: Path | None,
        resume: bool,
        fewer: Path | None,
        directory: Path,
    ) -> None:
        slower = record.read(fewer)["rows"] if fewer else ()
        _measure(name, pattern, directory, against, (threads, seconds, state), path, resume, slower)


for _name in FAMILIES:
    _family(_name)


@main.command("all")
@_THREADS
@_STATE
@click.option(
    "--families",
    "names",
    default=",".join(FAMILIES),
    show_default=True,
    help="Which, separated by commas.",
)
@click.option("--seconds", type=float, help="Measuring time for each row.  [default: the family's]")
@click.option(
    "--json-dir",
    "folder",
    type=_FOLDER,
    help="By default the folder of this CPU's level in benchmarks/records.",
)
@_ZOO
def run_all(
    threads: int,
    state: str,
    names: str,
    seconds: float | None,
    folder: Path | None,
    directory: Path,
) -> None:
    """All families, each into FAMILY-THREADSt.json; what is there already is not measured again.

    With several threads, rows say how they scale if the records on one thread are there.
    """
    folder = folder or RECORDS / targets.host().level
    for name in names.split(","):
        if name not in FAMILIES:
            raise click.UsageError(f"no family {name}; there are {', '.join(FAMILIES)}")
    for name in names.split(","):
        family = FAMILIES[name]
        one = _path(folder, name, 1, state)
        fewer = record.read(one)["rows"] if threads > 1 and one.exists() else ()
        path, how = _path(folder, name, threads, state), (threads, seconds or family.seconds, state)
        click.echo(f"== {name}")
        _measure(name, "", directory, family.peers, how, path, True, fewer)


@main.command()
@click.option("--json", "path", type=_FILE, help="Write a record.")
def calls(path: Path | None) -> None:
    """What calling an operator costs beside its kernel, and what a parallel region without work costs."""
    from benchmarks import calls as family

    found = family.measure_first() | family.measure_regions()
    host.pin(1)
    described = host.describe(1, ROOT)
    found |= family.measure_calls()
    click.echo(family.render(found))
    if path:
        path.write_text(family.to_json(described, found))


@main.command()
@_FILTER
@_ZOO
def accuracy(pattern: str, directory: Path) -> None:
    """Whole models: are the int8 results right? Nothing is timed."""
    from benchmarks import accuracy as family

    names = [item.fields["name"] for item in families.chosen("models", pattern, directory)]
    for scores in family.compare(names, directory):
        click.echo(scores)


@main.command()
@click.argument("records", nargs=-1, required=True, type=_FILE, metavar="RECORD...")
@click.option("-o", "--output", "folder", type=_FOLDER, required=True, help="Where the plots go.")
def plot(records: tuple[Path, ...], folder: Path) -> None:
    """Plot each record's times against the roofline, into DIR/RECORD.png. Needs the extra `docs`."""
    from benchmarks.plot import plot as draw

    found = [(path, record.read(path)) for path in records]
    folder.mkdir(parents=True, exist_ok=True)
    for path, one in found:
        draw(one, path.stem, folder / f"{path.stem}.png")
        click.echo(f"wrote {folder / path.stem}.png")


def _path(folder: Path, name: str, threads: int, state: str) -> Path:
    ending = "" if state == "warm" else f"-{state}"
    return folder / f"{name}-{threads}t{ending}.json"


def _measure(
    name: str,
    pattern: str,
    directory: Path,
    against: Sequence[str],
    how: tuple[int, float, str],
    path: Path | None,
    resume: bool,
    fewer: Sequence[Any],
) -> None:
    """Print each row when it is there, then the summary; fail if lowgemm failed anywhere."""
    items = families.chosen(name, pattern, directory)
    for item in items:
        item.prepare()
    described, setting = host.prepare(*how, ROOT)
    peaks = {**setting.peaks["dot_gops"], **setting.peaks["fma_gops"]}
    rates = ", ".join(f"{name} {gops:.0f} GOPS" for name, gops in peaks.items())
    click.echo(f"{described['cpu']}, {described['level']}, threads {setting.threads}: {rates}")
    kept = record.RecordFile(path, described, resume, fewer)
    failed = []
    for row in families.run(items, against, setting, kept):
        click.echo(record.render(row))
        if record.LOWGEMM in row.failures:
            failed.append(f"{row.name} {row.shape}")
    click.echo(record.render_summary(record.summarize(kept.rows)))
    if failed:
        raise click.ClickException(f"lowgemm failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
