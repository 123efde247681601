"""`lowgemm quantize`: a float model and samples to the QDQ model that `compile` would use."""

from pathlib import Path

import click

from lowgemm.cli._files import check_output
from lowgemm.cli._options import calibrate_option, model_argument, note, shape_option


@click.command("quantize", short_help="A float model and samples to a QDQ model.")
@model_argument
@calibrate_option(required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="QDQ.onnx")
@shape_option
def quantize_command(
    model: Path, calibrate: Path, output: Path, shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> None:
    """Quantize the float ONNX file MODEL: 8-bit activations, 8-bit weights per channel (QDQ)."""
    check_output(output)
    from lowgemm.frontend.quantize import load_samples, quantize

    samples = load_samples(calibrate)
    note(f"calibrating {model}")
    quantize(model, samples, output, shapes=dict(shapes) or None)
    note(f"wrote {output} ({output.stat().st_size / 1024:.0f} KiB)")
