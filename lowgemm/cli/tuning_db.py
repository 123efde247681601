"""`lowgemm tuning-db`: look after the databases that `lowgemm tune` writes."""

from pathlib import Path

import click

from lowgemm.cli._options import note
from lowgemm.cli._tables import table

_database = click.argument("database", type=click.Path(path_type=Path))


@click.group("tuning-db", short_help="Show, merge and prune tuning databases.")
def tuning_db_command() -> None:
    """Look after the databases that `lowgemm tune` writes."""


@tuning_db_command.command("best")
@_database
def best(database: Path) -> None:
    """Show the best configuration of each kernel in DATABASE, and what it gained over the heuristic one."""
    from lowgemm.schedules import config_to_json
    from lowgemm.tune._database import best_records

    rows = []
    for record in best_records(_open(database).records):
        knobs = " ".join(f"{k}={v}" for k, v in config_to_json(record.config).items())
        time = f"{1e6 * (record.seconds or 0):.1f}"
        task = record.task
        words = (str(task), task.target.level, str(task.threads), record.cpu, knobs)
        rows.append((*words, time, f"{1 / (record.relative or 1):.3f}"))
    head = ("kernel", "level", "threads", "cpu", "configuration", "us", "gain")
    for line in table(head, sorted(rows), left=5):
        click.echo(line)


@tuning_db_command.command("merge")
@click.argument("databases", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The result.",
)
def merge(databases: tuple[Path, ...], output: Path) -> None:
    """Write all trials of DATABASES into one file, each once; of repetitions the last one named counts."""
    from lowgemm.tune._database import merge

    note(f"wrote {output} ({merge(databases, output, note)} trials)")


@tuning_db_command.command("prune")
@_database
def prune(database: Path) -> None:
    """Keep what compiling needs: of each kernel on each CPU the best trial, and the first, which it is compared to."""
    from lowgemm.tune._database import prune

    gone = _open(database).rewrite(prune)
    note(f"removed {gone} trials from {database}")


def _open(path: Path):
    from lowgemm.tune._database import Database

    if not path.is_file():
        raise click.BadParameter(f'no file "{path}"', param_hint="DATABASE")
    return Database(path, note)
