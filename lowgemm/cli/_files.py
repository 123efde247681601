"""Writing results so that a failure leaves nothing half-written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


def check_output(path: Path, source: Path, option: str = "-o") -> None:
    """Fail before the work begins if `path` cannot be written after it.

    Raises:
        click.BadParameter: its folder is missing or not writable, `path` is a folder, or it is
            `source`, which the work reads.
    """
    folder = path.parent
    if path.is_dir():
        raise click.BadParameter(f'"{path}" is a folder; name a file', param_hint=option)
    if not folder.is_dir():
        raise click.BadParameter(f'folder "{folder}" does not exist', param_hint=option)
    if not os.access(folder, os.W_OK):
        raise click.BadParameter(f'folder "{folder}" is not writable', param_hint=option)
    if path.exists() and source.exists() and path.samefile(source):
        raise click.BadParameter(f'"{path}" is the model itself; name another', param_hint=option)


def make_folder(path: Path) -> None:
    """Make folder `path`, and its parents, unless it is there.

    Raises:
        click.BadParameter: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise click.BadParameter(
            f'cannot make folder "{path}": {reason}', param_hint="-o"
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; it takes the place of `path` if the block succeeds."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; a result gets the permissions that any new file gets.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask, which the system only tells when it is set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
