"""`lowgemm compile`: a model file to a shared library."""

from pathlib import Path
from typing import Any

import click

from lowgemm.cli._files import check_output
from lowgemm.cli._options import (
    calibrate_option,
    model_argument,
    note,
    shape_option,
    threads_option,
)


@click.command("compile", short_help="A model to a shared library.")
@model_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="OUT.so")
@calibrate_option(required=False)
@click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="host|NAME[,NAME]",
    help="Levels to compile for, see `lowgemm targets`; the best one is chosen at load.",
)
@shape_option
@threads_option
def compile_command(
    model: Path,
    output: Path,
    calibrate: Path | None,
    target: str,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    threads: int | None,
) -> None:
    """Compile the ONNX file MODEL into one shared library, with its C header beside it.

    MODEL is already quantized (QDQ or QOperator), or float, and then --calibrate gives the samples
    to quantize by.
    """
    check_output(output)
    import lowgemm

    calibration: dict[str, Any] | None = None
    if calibrate is not None:
        from lowgemm.frontend.quantize import load_samples

        calibration = load_samples(calibrate)
    note(f"compiling {model} for {target}")
    compiled = lowgemm.compile(
        model,
        target=target,
        calibration=calibration,
        shapes=dict(shapes) or None,
        threads=threads,
    )
    compiled.export(output)
    note(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB)")
