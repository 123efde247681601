"""`lowgemm demo`: the whole story on what ships with the package."""

from pathlib import Path

import click

from lowgemm.cli._files import make_folder
from lowgemm.cli._options import progress, threads_option


@click.command("demo", short_help="Show all of it on a model and images in the package.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("lowgemm-demo"),
    show_default=True,
    metavar="DIR",
    help="Where the quantized model, the library and its C header go.",
)
@threads_option()
def demo_command(output: Path, threads: int | None) -> None:
    """Quantize, compile and run a digit classifier that ships with the package."""
    make_folder(output)
    from lowgemm.artifact.build import find_compiler
    from lowgemm.demo import run_demo

    find_compiler()
    for line in run_demo(output, threads, progress=progress).lines():
        click.echo(line)
