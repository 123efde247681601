"""Values of the shared flags."""

import sys
from pathlib import Path

import click
import pytest

from lowgemm.cli._options import NamedFile, NamedShape, progress


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=1x3x224x224", ("x", (1, 3, 224, 224))),
        ("x=7", ("x", (7,))),
        ("a=b=1x2", ("a=b", (1, 2))),
        ("images:0=1x2", ("images:0", (1, 2))),
    ],
)
def test_shape(text: str, value: object) -> None:
    assert NamedShape().convert(text, None, None) == value


@pytest.mark.parametrize(
    "text", ["x", "x=", "=1x2", "x=1x", "x=axb", "x=0x3", "x=-1x3", "x=1,3", ""]
)
def test_bad_shape_is_told(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not of the form NAME=1x3x224x224"):
        NamedShape().convert(text, None, None)


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "a=b.npy"
    path.touch()
    assert NamedFile().convert(f"x={path}", None, None) == ("x", path)


@pytest.mark.parametrize("text", ["x", "x=", "=a.npy"])
def test_bad_file_form_is_told(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not of the form"):
        NamedFile().convert(text, None, None)


def test_missing_file_is_told() -> None:
    with pytest.raises(click.BadParameter, match=r'no file "nowhere\.npy" for input "x"'):
        NamedFile().convert("x=nowhere.npy", None, None)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress("compiling")
    assert capsys.readouterr() == ("", "compiling\n" if terminal else "")
