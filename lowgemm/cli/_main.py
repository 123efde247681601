"""The `lowgemm` command: its list of commands and how errors reach the shell."""

from typing import Any

import click

from lowgemm.cli.compile import compile_command
from lowgemm.cli.demo import demo_command
from lowgemm.cli.inspect import inspect_command
from lowgemm.cli.quantize import quantize_command
from lowgemm.cli.run import run_command
from lowgemm.cli.targets import targets_command
from lowgemm.errors import LowgemmError

USER_ERROR_STATUS = 2  # what click itself exits with on a bad flag


class Commands(click.Group):
    """Words each LowgemmError as one line on stderr and exits with status 2.

    Any other exception keeps its traceback: it is a defect of lowgemm, and the traceback is what a
    report needs.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LowgemmError as error:
            click.echo(f"lowgemm: error: {' '.join(str(error).split())}", err=True)
            ctx.exit(USER_ERROR_STATUS)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
    targets_command,
):
    main.add_command(_command)
