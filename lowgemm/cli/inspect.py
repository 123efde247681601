"""`lowgemm inspect`: what a library holds, layer by layer, and how fast each layer is here."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lowgemm.cli._options import library_argument, note, progress, threads_option
from lowgemm.cli._tables import table
from lowgemm.errors import TargetError

if TYPE_CHECKING:
    import numpy as np

_HEAD = ("layer", "kernel", "output", "MMACs", "us", "% of time", "GOPS", "% of peak")
_WORDS = 3  # columns of words
_SEED = 0


@click.command("inspect", short_help="Show a library's layers and how fast each is here.")
@library_argument
@threads_option()
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="Runs to take each layer's time from.",
)
def inspect_command(library: Path, threads: int | None, repeat: int) -> None:
    """Show the layers of LIBRARY: kernel, output shape, multiply-accumulates, time, GOPS and share of the peak.

    Its inputs and outputs come last.

    One multiply-accumulate counts as two operations. The inputs are random numbers. The peak is
    what the dot-product instruction of the library's level reaches here, measured now, times the
    number of threads.
    """
    import lowgemm

    net = lowgemm.load(library, threads=threads)
    peak = _peak(net.level, net.threads)
    progress(f"running {repeat} times")
    steps = net.profile(_random_inputs(net.inputs), repeat)
    for line in table(_HEAD, rows(steps, peak), left=_WORDS):
        click.echo(line)
    threads_used = f"{net.threads} thread{'s' if net.threads != 1 else ''}"
    peak_known = f", peak {peak:.0f} GOPS" if peak else ""
    click.echo(f"level {net.level}, {threads_used}{peak_known}")
    for kind, ports in (("input", net.inputs), ("output", net.outputs)):
        for port in ports:
            click.echo(f"{kind} {port}")


def _peak(level: str, threads: int) -> float | None:
    """GOPS of `threads` cores, or None, with a note, where it cannot be measured."""
    from lowgemm.targets.peak import measure_peak

    progress(f"measuring the peak of {level}")
    try:
        return measure_peak(level) * threads
    except TargetError as error:  # the layers' times are worth having all the same
        note(f"no share of the peak: {error}")
        return None


def rows(steps: Sequence[Mapping[str, Any]], peak: float | None) -> list[tuple[str, ...]]:
    """The table's rows, one a step and the sum of all; `peak` is in GOPS, None if not known."""
    total = sum(step["seconds"] for step in steps)
    macs = sum(step["macs"] for step in steps)
    lines = [
        _row(
            (step["layer"], step["kernel"], "x".join(map(str, step["shape"]))),
            step["macs"],
            step["seconds"],
            total,
            peak,
        )
        for step in steps
    ]
    return [*lines, _row(("total", "", ""), macs, total, total, peak)]


def _row(
    words: tuple[str, str, str], macs: int, seconds: float, total: float, peak: float | None
) -> tuple[str, ...]:
    share = f"{seconds / total:.1%}" if total else ""
    microseconds = f"{seconds * 1e6:.1f}"
    if not macs or not seconds:  # moves data only, so there is no rate to speak of
        return (*words, "", microseconds, share, "", "")
    gops = 2e-9 * macs / seconds
    of_peak = f"{gops / peak:.1%}" if peak else ""
    return (*words, f"{macs / 1e6:.3f}", microseconds, share, f"{gops:.1f}", of_peak)


def _random_inputs(ports: Iterable[Any]) -> "dict[str, np.ndarray]":
    """An array for each port: normally distributed, or of the whole range of an integer type."""
    import numpy as np

    generator = np.random.default_rng(_SEED)
    arrays = {}
    for port in ports:
        dtype = np.dtype(port.dtype)
        if dtype == np.bool_:
            arrays[port.name] = generator.integers(0, 2, port.shape).astype(dtype)
        elif dtype.kind in "iu":
            # An index is likely where integers are wide: small ones are valid ones.
            high = np.iinfo(dtype).max + 1 if dtype.itemsize == 1 else 2
            low = np.iinfo(dtype).min if dtype.itemsize == 1 else 0
            arrays[port.name] = generator.integers(low, high, port.shape).astype(dtype)
        else:
            arrays[port.name] = generator.standard_normal(port.shape).astype(dtype)
    return arrays
