"""`lowgemm run`: a compiled library on arrays from files."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowgemm.cli._files import make_folder, replacing
from lowgemm.cli._options import NamedFile, library_argument, note, threads_option
from lowgemm.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_SHOWN_VALUES = 10
_NPY_MAGIC = b"\x93NUMPY"


@click.command("run", short_help="Run a library on arrays from files.")
@library_argument
@click.option(
    "--input",
    "inputs",
    type=NamedFile(),
    multiple=True,
    metavar="NAME=FILE.npy",
    help="One input's array; repeat for each input.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write each output to DIR/NAME.npy.  [default: print them]",
)
@threads_option()
def run_command(
    library: Path,
    inputs: tuple[tuple[str, Path], ...],
    output: Path | None,
    threads: int | None,
) -> None:
    """Run the compiled LIBRARY (a .so that `lowgemm compile` wrote) once."""
    import lowgemm

    net = lowgemm.load(library, threads=threads)
    arrays: dict[str, np.ndarray] = {}
    for name, path in inputs:
        if name in arrays:
            raise InputError(f'input "{name}" is given twice')
        arrays[name] = _read_array(name, path)
    results = net(arrays)
    if output is None:
        for name, array in results.items():
            click.echo(_describe(name, array))
        return
    make_folder(output)
    for name, path in _output_paths(output, list(results)).items():
        with replacing(path) as temporary:
            _write_array(temporary, results[name])
        note(f"wrote {path}")


def _read_array(name: str, path: Path) -> "np.ndarray":
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
                raise InputError(
                    f'"{path}" for input "{name}" is no .npy file: save one array with numpy.save'
                )
            file.seek(0)
            return np.load(file, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # numpy has a kind for each kind of damage
        raise InputError(f'cannot read "{path}" for input "{name}": {error}') from None


def _write_array(path: Path, array: "np.ndarray") -> None:
    import numpy as np

    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _describe(name: str, array: "np.ndarray") -> str:
    """One line: name, type, shape and the first values."""
    values = " ".join(f"{value:.6g}" for value in array.reshape(-1)[:_SHOWN_VALUES].tolist())
    more = " ..." if array.size > _SHOWN_VALUES else ""
    return f"{name}  {array.dtype}  {'x'.join(map(str, array.shape)) or 'scalar'}  {values}{more}"


def _output_paths(folder: Path, names: list[str]) -> dict[str, Path]:
    """A file for each output; what is special in a path becomes "_", numbered if that collides."""
    paths: dict[str, Path] = {}
    for name in names:
        stem = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "output"
        path, count = folder / f"{stem}.npy", 1
        while path in paths.values():
            count += 1
            path = folder / f"{stem}-{count}.npy"
        paths[name] = path
    return paths
