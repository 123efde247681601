"""`lowgemm inspect`: what a library holds, layer by layer, and how fast each layer is here."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowgemm.cli._options import library_argument, note, threads_option

if TYPE_CHECKING:
    pass

_SEED = 0


@click.command("inspect")
@library_argument
@threads_option
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Runs to take each layer's median time from.",
)
def inspect_command(library: Path, threads: int | None, repeat: int) -> None:
    """Show LIBRARY's layers: kernel, multiply-accumulates, time, GOPS and share of this CPU's peak.

    One multiply-accumulate counts as two operations. The inputs are random numbers. The peak is
    what the dot-product instruction of the library's level reaches here on the same number of
    threads, measured now.
    """
    import lowgemm
    from lowgemm.targets.peak import measure_peak

    net = lowgemm.load(library, threads=threads)
    level = net.level
    note(f"measuring the peak of {level}")
    peak = measure_peak(level) * net.threads
    note(f"running {repeat} times")
    steps = net.profile(_random_inputs(net), repeat)
    _print_table(steps, peak)
    ports = (*(f"in {p}" for p in net.inputs.values()), *(f"out {p}" for p in net.outputs.values()))
    click.echo(f"{library}  level {level}  {net.threads} threads  {'  '.join(ports)}")
    click.echo(f"peak {peak:.0f} GOPS")
