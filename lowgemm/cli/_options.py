"""Flags that several commands share, and how their values are read."""

import sys
from pathlib import Path
from typing import Any

import click


class NamedShape(click.ParamType):
    """`NAME=1x3x224x224`, read as `(NAME, (1, 3, 224, 224))`."""

    name = "NAME=SHAPE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        # The last "=": names may hold one, shapes never do.
        name, separator, dims = value.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split("x"))
        except ValueError:
            shape = ()
        if not (name and separator and shape) or min(shape) < 1:
            self.fail(f'"{value}" is not of the form NAME=1x3x224x224', param, ctx)
        return name, shape


class NamedFile(click.ParamType):
    """`NAME=FILE`, read as `(NAME, Path(FILE))`; the file must be there."""

    name = "NAME=FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        name, separator, file = value.partition("=")
        if not (name and separator and file):
            self.fail(f'"{value}" is not of the form NAME=FILE.npy', param, ctx)
        path = Path(file)
        if not path.is_file():
            self.fail(f'no file "{path}" for input "{name}"', param, ctx)
        return name, path


model_argument = click.argument("model", type=click.Path(path_type=Path))
library_argument = click.argument("library", type=click.Path(path_type=Path))


def threads_option(purpose: str = "Threads to compute with.") -> Any:
    """`--threads N`."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"{purpose}  [default: every CPU this process may use]",
    )


shape_option = click.option(
    "--shape",
    "shapes",
    type=NamedShape(),
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="Fix the shape of an input whose shape the model leaves open; may be repeated.",
)


def calibrate_option(required: bool) -> Any:
    """`--calibrate SAMPLES.npz`."""
    return click.option(
        "--calibrate",
        type=click.Path(path_type=Path),
        metavar="SAMPLES.npz",
        required=required,
        help="Samples to quantize a float model by: an array per input, named as the input is, "
        "first axis = samples. A hundred or two are enough.",
    )


def note(text: str) -> None:
    """Tell the user something on stderr, so that stdout holds results only."""
    click.echo(text, err=True)


def progress(text: str) -> None:
    """Tell a user at a terminal what is going on; a script's stderr holds what it must know only."""
    if sys.stderr.isatty():
        note(text)
