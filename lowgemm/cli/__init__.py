"""The command line: one file a command, each translating between the shell and public functions."""

from lowgemm.cli._main import main as main
