"""`lowgemm run` reads arrays, runs, and prints or writes; the library is replaced here."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import lowgemm
from lowgemm.cli import main


class FakeNet:
    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        total = sum(array.sum() for array in inputs.values())
        return {
            "a/b:0": np.full((2, 8), total, np.float32),
            "a_b:0": np.array([7], np.int64),
            "scalar": np.array(True),
        }


@pytest.fixture(autouse=True)
def fake_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowgemm, "load", lambda path, threads=None: FakeNet(), raising=False)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", "m.so", *map(str, arguments)])


@pytest.fixture
def ones(tmp_path: Path) -> Path:
    path = tmp_path / "ones.npy"
    np.save(path, np.ones((3, 4), np.float32))
    return path


def test_outputs_are_printed(ones: Path) -> None:
    result = invoke("--input", f"x={ones}")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "a/b:0  float32  2x8  12 12 12 12 12 12 12 12 12 12 ...",
        "a_b:0  int64  1  7",
        "scalar  bool  scalar  1",
    ]


def test_outputs_are_written(ones: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    result = invoke("--input", f"x={ones}", "--input", f"y={ones}", "-o", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert sorted(path.name for path in folder.iterdir()) == [
        "a_b_0-2.npy",
        "a_b_0.npy",
        "scalar.npy",
    ]
    assert np.array_equal(np.load(folder / "a_b_0.npy"), np.full((2, 8), 24, np.float32))
    assert np.load(folder / "a_b_0-2.npy") == [7]


def test_input_given_twice(ones: Path) -> None:
    result = invoke("--input", f"x={ones}", "--input", f"x={ones}")
    assert result.exit_code == 2
    assert result.stderr == 'lowgemm: error: input "x" is given twice\n'


def test_missing_file() -> None:
    result = invoke("--input", "x=nowhere.npy")
    assert result.exit_code == 2
    assert result.stderr == (
        'lowgemm: error: Invalid value for \'--input\': no file "nowhere.npy" for input "x"; '
        "see lowgemm run --help\n"
    )


@pytest.mark.parametrize("content", [b"", b"not numpy at all", b"PK\x03\x04"], ids=repr)
def test_file_that_is_no_array(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    result = invoke("--input", f"x={path}")
    assert result.exit_code == 2
    assert result.stderr == (
        f'lowgemm: error: "{path}" for input "x" is no .npy file: save one array with numpy.save\n'
    )


@pytest.mark.parametrize("kept", [8, 20, -1], ids=["magic", "header", "data"])
def test_file_that_is_cut_short(ones: Path, kept: int) -> None:
    ones.write_bytes(ones.read_bytes()[:kept])
    result = invoke("--input", f"x={ones}")
    assert result.exit_code == 2
    assert result.stderr.startswith(f'lowgemm: error: cannot read "{ones}" for input "x": ')
    assert result.stderr.count("\n") == 1


def test_pickled_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    result = invoke("--input", f"x={path}")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
