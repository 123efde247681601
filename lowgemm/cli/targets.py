"""`lowgemm targets`: the instruction-set levels that lowgemm knows, and what this host has."""

import click


@click.command("targets", short_help="List the instruction-set levels, and which of them run here.")
def targets_command() -> None:
    """List the instruction-set levels to compile for, best first, and which of them run here."""
    from lowgemm.targets import LEVELS, host_features, host_levels

    features = host_features()
    runnable = host_levels()
    width = max(map(len, LEVELS))
    for target in LEVELS.values():
        missing = target.missing(features)
        state = f"this CPU lacks {', '.join(missing)}" if missing else "runs here"
        if runnable and target.level == runnable[0].level:
            state = 'runs here, and is what "host" means'
        if not target.verified:
            state += "; not verified on hardware, used only by name"
        click.echo(f"{target.level:<{width}}  {target.vector_bits}-bit  {state}")
    if not runnable:
        click.echo("this host runs none of them; libraries can still be compiled here for another")
