"""`lowgemm rpc`: let a tuner on another machine measure here."""

import click

from lowgemm.cli._options import note

_LOOPBACK = "127.0.0.1"


def _address_options(port: int):
    def add(command):
        command = click.option(
            "--port", type=click.IntRange(1, 65435), default=port, show_default=True, metavar="N",
            help="The port to listen on, or the next one that is free.",
        )(command)  # fmt: skip
        return click.option(
            "--host",
            default=_LOOPBACK,
            show_default=True,
            metavar="ADDRESS",
            help="The address to listen on. Whoever reaches it can run code here: never one of a public network.",
        )(command)

    return add


@click.group("rpc", short_help="Let a tuner on another machine measure here.")
def rpc_command() -> None:
    """Let `lowgemm tune --rpc HOST:PORT --key NAME` measure on this machine.

    One machine runs the tracker, each machine to measure on a server that registers with it. Both are TVM's: they
    have no passwords and no encryption, and whoever reaches a server can run code on it. They listen on the loopback
    interface unless --host says otherwise; reach them through an SSH tunnel or inside a private network, never over a
    public one.
    """


@rpc_command.command("tracker")
@_address_options(9190)
def tracker(host: str, port: int) -> None:
    """Run the tracker, which knows the servers, until it is stopped."""
    from lowgemm.tune._rpc import start_tracker

    found, thread = start_tracker(host, port)
    note(f"tracker listens on {host}:{found}")
    thread.join()


@rpc_command.command("server")
@click.option("--tracker", "address", required=True, metavar="HOST:PORT", help="The tracker.")
@click.option(
    "--key", required=True, metavar="NAME", help="What tuners call machines like this one."
)
@_address_options(9090)
def server(address: str, key: str, host: str, port: int) -> None:
    """Measure here for the tuners that the tracker sends, one at a time, until it is stopped."""
    from lowgemm.tune._rpc import start_server

    while True:
        found, thread = start_server(host, port, address, key)
        note(f'server "{key}" listens on {host}:{found}')
        thread.join()  # ends when a session ended badly
