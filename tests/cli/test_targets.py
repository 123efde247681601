"""`lowgemm targets` lists all levels and says which run here."""

from click.testing import CliRunner

from lowgemm.cli import main
from lowgemm.targets import LEVELS

import isa


def test_lists_levels_and_says_which_run_here() -> None:
    result = CliRunner().invoke(main, ["targets"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert [name for name in lines if name in LEVELS] == list(LEVELS)
    for level in isa.LEVELS:
        assert ("runs here" in lines[level]) == (level in isa.host_levels()), lines[level]


def test_exactly_one_level_is_the_host() -> None:
    result = CliRunner().invoke(main, ["targets"])
    assert result.stdout.count('"host"') == bool(isa.host_levels())


def test_says_what_is_not_verified() -> None:
    result = CliRunner().invoke(main, ["targets"])
    for line in result.stdout.splitlines():
        name = line.split()[0]
        wanted = name in LEVELS and not LEVELS[name].verified
        assert line.endswith("; not verified on hardware, used only by name") == wanted
