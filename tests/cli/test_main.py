"""How errors reach the shell, and what the command list says."""

import pytest
from click.testing import CliRunner

import lowgemm
from lowgemm.cli import main
from lowgemm.errors import ModelError


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for command in ("compile", "quantize", "run", "inspect", "targets", "demo"):
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize(
    "command", ["compile", "quantize", "run", "inspect", "targets", "demo"], ids=str
)
def test_each_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_version_is_the_packages() -> None:
    from importlib.metadata import version

    result = CliRunner().invoke(main, ["--version"])
    assert version("lowgemm") in result.stdout


def test_lowgemm_error_is_one_line_and_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ModelError("the model\nis broken")

    monkeypatch.setattr(lowgemm, "load", fail, raising=False)
    result = CliRunner().invoke(main, ["run", "x.so"])
    assert result.exit_code == 2
    assert result.stderr == "lowgemm: error: the model is broken\n"
    assert result.stdout == ""


def test_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(lowgemm, "load", fail, raising=False)
    result = CliRunner().invoke(main, ["run", "x.so"])
    assert isinstance(result.exception, AssertionError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'; see lowgemm --help"),
        (["--nonsense"], "No such option '--nonsense'; see lowgemm --help"),
        (["compile"], "Missing argument 'MODEL'; see lowgemm compile --help"),
        (["compile", "m.onnx"], "Missing option '-o' / '--output'; see lowgemm compile --help"),
        (
            ["run", "m.so", "--threads", "0"],
            "Invalid value for '--threads': 0 is not in the range x>=1; see lowgemm run --help",
        ),
    ],
    ids=["command", "option", "argument", "required", "value"],
)
def test_bad_usage_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr == f"lowgemm: error: {message}\n"
    assert result.stdout == ""


def test_without_arguments_it_shows_the_help() -> None:
    assert "Commands:" in CliRunner().invoke(main, []).output
