"""`lowgemm compile`: a model file to a shared library."""

from pathlib import Path
from typing import Any

import click

from lowgemm.cli._files import check_output
from lowgemm.cli._options import (
    calibrate_option,
    model_argument,
    note,
    progress,
    shape_option,
    threads_option,
)

_FLOAT_KERNELS = ("float_", "move_")  # names that `lowgemm inspect` shows


@click.command("compile", short_help="Compile an ONNX model to a shared library.")
@model_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT.so",
    help="The library to write; its C header, OUT.h, goes beside it.",
)
@calibrate_option(required=False)
@click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="host|NAME[,NAME]",
    help="Levels to compile for, see `lowgemm targets`; a library with several uses the best one "
    "that its CPU runs.",
)
@shape_option
@threads_option("Threads to arrange the work for; the library runs with any number.")
@click.option(
    "--tuning-db",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configure kernels as `lowgemm tune` found best for this number of threads.",
)
def compile_command(
    model: Path,
    output: Path,
    calibrate: Path | None,
    target: str,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    threads: int | None,
    tuning_db: Path | None,
) -> None:
    """Compile the ONNX file MODEL into one shared library, with its C header beside it.

    A model that is quantized already (QDQ or QOperator form) is compiled as it is. A float model is
    quantized with the samples of --calibrate; without them it stays float.
    """
    check_output(output, model)
    if output.suffix == ".h":
        raise click.BadParameter("OUT.h is the C header; name the library OUT.so", param_hint="-o")
    import lowgemm
    from lowgemm.artifact.build import find_compiler

    find_compiler()  # if there is none, say so now: kernels take a while

    calibration: dict[str, Any] | None = None
    if calibrate is not None:
        from lowgemm.frontend.quantize import load_samples

        calibration = load_samples(calibrate)
    progress(f"compiling {model} for {target}")
    compiled = lowgemm.compile(
        model,
        target=target,
        calibration=calibration,
        shapes=dict(shapes) or None,
        threads=threads,
        tuning_db=tuning_db,
    )
    compiled.export(output)
    if all(step.kernel.startswith(_FLOAT_KERNELS) for step in compiled.plan.variants[0].steps):
        note(f"{model} is a float model and stays one; --calibrate would quantize it")
    note(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB)")
