"""`python -m benchmarks FAMILY`: time lowgemm and its peers, print rows, write a record."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import host, layers, record, timing, zoo
from benchmarks.engines import PEERS

_LAYER_PEERS = ("fbgemm", "onednn")
_ZOO = click.option(
    "--zoo",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=zoo.DEFAULT_DIRECTORY,
    show_default=True,
    help="Where the models are, or are built.",
)
_FILTER = click.option("--filter", "pattern", default="", help="Only those with this in the name.")


def _measuring(peers: Sequence[str], seconds: float) -> Callable[[Any], Any]:
    """The options of all commands that time something."""

    def parse(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if unknown := [name for name in names if name not in peers]:
            raise click.BadParameter(f"no peer {', '.join(unknown)}; there are {', '.join(peers)}")
        return names

    options = (
        click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True),
        _FILTER,
        click.option(
            "--against",
            default=",".join(peers),
            show_default=True,
            callback=parse,
            help="Peers, separated by commas; may be empty.",
        ),
        click.option(
            "--state",
            type=click.Choice(["warm", "flushed"]),
            default="warm",
            show_default=True,
            help="What the caches hold before each run: the last run's data, or nothing of it.",
        ),
        click.option(
            "--seconds", default=seconds, show_default=True, help="Measuring time for each row."
        ),
        click.option(
            "--record",
            "records",
            type=click.Path(path_type=Path, file_okay=False),
            is_flag=False,
            flag_value=record.DIRECTORY,
            help="Write a record into this folder, benchmarks/records if none is named.",
        ),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(context_settings={"max_content_width": 100})
def main() -> None:
    """Time lowgemm beside other engines on this machine."""


@main.command()
@_measuring(tuple(PEERS), seconds=20.0)
@_ZOO
def models(
    threads: int,
    pattern: str,
    against: list[str],
    state: str,
    seconds: float,
    records: Path | None,
    directory: Path,
) -> None:
    """Whole models at batch 1."""
    from benchmarks import models as family

    names = _models(pattern)
    # Building models needs all cores, and must not happen within the measurement.
    for name in names:
        zoo.ensure(name, directory)
    described, peak, flush = _prepare(threads, state)
    rows = family.rows(names, threads, against, peak, seconds, state, flush, directory)
    _report(rows, described, records and record.path("models", threads, state, records))


def _layer_family(name: str, title: str) -> None:
    @main.command(name, help=f"{title}, uint8 by int8 per channel, requantized to uint8.")
    @_measuring(_LAYER_PEERS, seconds=3.0)
    def command(
        threads: int,
        pattern: str,
        against: list[str],
        state: str,
        seconds: float,
        records: Path | None,
    ) -> None:
        described, peak, flush = _prepare(threads, state)
        from benchmarks import kernels  # loads PyTorch, which counts the CPUs: pin before

        chosen = [x for x in layers.family(name) if pattern in f"{x.name} {x.shape}"]
        rows = kernels.rows(chosen, threads, against, peak, seconds, state, flush)
        _report(rows, described, records and record.path(name, threads, state, records))


_layer_family("gemm", "Matrix products")
_layer_family("conv", "Convolutions")
_layer_family("depthwise", "Depthwise convolutions")


@main.command()
@click.option("--record", "recorded", is_flag=True, help="Write benchmarks/records/calls.json.")
def calls(recorded: bool) -> None:
    """What calling an operator costs beside its kernel."""
    from benchmarks import calls as family

    found = family.measure_first()
    host.pin(1)
    described = host.describe()
    found |= family.measure_calls()
    click.echo(family.render(found))
    if recorded:
        (record.DIRECTORY / "calls.json").write_text(family.to_json(described, found))


@main.command()
@_FILTER
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


def _prepare(threads: int, state: str) -> tuple[dict[str, Any], float, Callable[[], object] | None]:
    """Pin this process; return the host's description, its peak in GOPS, and what flushes its caches."""
    host.pin(threads)
    described = host.describe()
    peak_gops = threads * max(described["dot_gops"].values())
    last_level = max(described["caches"].values())
    return described, peak_gops, timing.cache_flusher(last_level) if state == "flushed" else None


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
    if failed := [f"{row.name} {row.shape}" for row in done if record.LOWGEMM in row.failures]:
        raise click.ClickException(f"lowgemm failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
