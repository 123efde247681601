"""Flags that several commands share, and how their values are read."""

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

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads to compute with.  [default: every CPU this process may use]",
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
        help="Calibration samples: an array per input, named as it is, first axis = samples.",
    )


def note(text: str) -> None:
    """Tell the user what is going on, on stderr, so that stdout holds results only."""
    click.echo(text, err=True)
