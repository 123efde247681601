"""`lowgemm quantize`: a float model and samples to the QDQ model that `compile` would use."""

from pathlib import Path

import click

from lowgemm.cli._files import check_output
from lowgemm.cli._options import calibrate_option, model_argument, note, progress, shape_option


@click.command("quantize", short_help="Quantize a float ONNX model to a QDQ model.")
@model_argument
@calibrate_option(required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="QDQ.onnx",
    help="The quantized model to write.",
)
@shape_option
@click.option(
    "--reduce-range/--no-reduce-range",
    default=True,
    show_default=True,
    help="Keep the sums of neighbouring weights small enough for vpmaddubsw, which is faster without VNNI "
    "and right in engines that saturate there; or use all of int8.",
)
def quantize_command(
    model: Path,
    calibrate: Path,
    output: Path,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    reduce_range: bool,
) -> None:
    """Quantize the float ONNX file MODEL: 8-bit activations, 8-bit weights per channel (QDQ).

    `lowgemm compile --calibrate` does this by itself; this is to look at the quantized model, or to
    run it elsewhere.
    """
    check_output(output, model)
    from lowgemm.frontend.quantize import load_samples, quantize

    samples = load_samples(calibrate)
    progress(f"calibrating {model}")
    quantize(model, samples, output, shapes=dict(shapes) or None, reduce_range=reduce_range)
    note(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB)")
