"""The `lowgemm` command: its list of commands and how errors reach the shell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from lowgemm.cli.bench import bench_command
from lowgemm.cli.compile import compile_command
from lowgemm.cli.demo import demo_command
from lowgemm.cli.inspect import inspect_command
from lowgemm.cli.quantize import quantize_command
from lowgemm.cli.rpc import rpc_command
from lowgemm.cli.run import run_command
from lowgemm.cli.targets import targets_command
from lowgemm.cli.tune import tune_command
from lowgemm.cli.tuning_db import tuning_db_command
from lowgemm.errors import LowgemmError

USER_ERROR_STATUS = 2  # what click itself exits with on a bad flag


class Commands(click.Group):
    """Words what is wrong with an argument or a file as one line on stderr, and exits with status 2.

    Any exception but LowgemmError and click's own keeps its traceback: it is a defect of lowgemm,
    and the traceback is what a report needs.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:  # shows the help
            return super().parse_args(ctx, args)
        with _one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line(ctx):
            return super().invoke(ctx)


@contextmanager
def _one_line(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except LowgemmError as error:
        text = str(error)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else ctx.command_path
        text = f"{error.format_message().rstrip('.')}; see {command} --help"
    else:
        return
    click.echo(f"lowgemm: error: {' '.join(text.split())}", err=True)
    ctx.exit(USER_ERROR_STATUS)


@click.group("lowgemm", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lowgemm", message="%(prog)s %(version)s")
def main() -> None:
    """Compile int8 models for x86 CPUs into one self-contained shared library.

    `lowgemm demo` shows the whole of it on a model and images that ship with the package.
    """


for _command in (
    demo_command,
    compile_command,
    quantize_command,
    run_command,
    inspect_command,
    bench_command,
    tune_command,
    tuning_db_command,
    rpc_command,
    targets_command,
):
    main.add_command(_command)
