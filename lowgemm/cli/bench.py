"""`lowgemm bench`: a user's own model beside other engines."""

import tempfile
from pathlib import Path

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

_PEERS = "onnxruntime,openvino"


@click.command("bench", short_help="Time a model beside ONNX Runtime and OpenVINO.")
@model_argument
@click.option(
    "--against",
    default=_PEERS,
    show_default=True,
    metavar="NAME[,NAME]",
    help="Engines to compare with; may be empty.",
)
@threads_option("Threads of every engine, on as many CPUs.")
@calibrate_option(required=False)
@shape_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Measuring time, after compiling and checking.",
)
@click.option("--json", "record_path", type=click.Path(path_type=Path), metavar="FILE")
def bench_command(
    model: Path,
    against: str,
    threads: int | None,
    calibrate: Path | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    seconds: float,
    record_path: Path | None,
) -> None:
    """Time the ONNX file MODEL in lowgemm and in other engines, in turns, on this machine.

    A quantized model runs in all of them as it is. A float model is quantized with the samples of --calibrate, and the
    others run both forms; without samples all run it in float. Inputs are the first sample, or random. Every result is
    compared with that of ONNX Runtime's exact kernels first; an engine whose result is wrong does not count.

    --json FILE writes a record: the host, the times, the ratio of the best engine's time to lowgemm's.
    """
    import os

    from lowgemm.bench import host, record
    from lowgemm.bench.engines import PEERS, installed
    from lowgemm.bench.models import bench_model

    names = [name.strip() for name in against.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PEERS]:
        raise click.BadParameter(
            f"no engine {', '.join(unknown)}; there are {', '.join(PEERS)}",
            param_hint="--against",
        )
    if record_path is not None:
        check_output(record_path, model, "--json")
    calibration = None
    if calibrate is not None:
        from lowgemm.frontend.quantize import load_samples

        calibration = load_samples(calibrate)
    for name in names:
        if not installed(name):
            note(f"{name} is not installed, so it is not measured: pip install {name}")
    if not installed("onnxruntime"):
        note("results are not checked: that takes onnxruntime")
    count = threads or len(os.sched_getaffinity(0))
    described, setting = host.prepare(count, seconds, "warm")
    progress(f"compiling and measuring {model}")
    with tempfile.TemporaryDirectory(prefix="lowgemm-bench-") as folder:
        row = bench_model(
            model,
            [name for name in names if installed(name)],
            setting,
            Path(folder),
            calibration,
            dict(shapes) or None,
        )
    click.echo(record.render(row))
    if record_path is not None:
        record.write(record_path, described, [row.to_json()])
        note(f"wrote {record_path}")
