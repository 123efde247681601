"""conftest.py: skips name the missing features, and a level left out fails the whole suite.

Each test runs pytest on a small suite of its own, on a CPU that has what the test says.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lowgemm import targets

import isa

HERE = Path(__file__).parent

SUITE = """
import isa
import pytest


@pytest.mark.parametrize("level", isa.isas("avx2", "avx_vnni"))
def test_marked(level):
    pass


def test_recording(record_isa):
    record_isa("avx512")


def test_unrelated():
    pass
"""


def run_suite(folder: Path, flags: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run SUITE under this folder's conftest.py on a CPU with `flags`."""
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy(HERE / "conftest.py", tests)
    source = (HERE / "isa.py").read_text()
    (tests / "isa.py").write_text(f"{source}\n\nFLAGS = frozenset({sorted(flags)!r})\n")
    (tests / "test_suite.py").write_text(SUITE)
    shutil.copy(HERE.parent / "pyproject.toml", folder)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=folder, capture_output=True, text=True
    )


AVX512 = {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"}


def test_skip_names_what_is_missing(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2"})
    assert done.returncode == 0, done.stdout
    assert "avx_vnni: this CPU lacks avx_vnni" in done.stdout
    assert "avx2         exercised" in done.stdout


def test_recorded_level_counts(tmp_path: Path) -> None:
    done = run_suite(tmp_path, AVX512 | {"avx_vnni"})
    assert done.returncode == 0, done.stdout
    assert "avx512       exercised" in done.stdout
    assert "avx_vnni     exercised" in done.stdout


def test_level_left_out_fails_the_whole_suite(tmp_path: Path) -> None:
    done = run_suite(tmp_path, AVX512 | {"avx512_vnni"})
    assert done.returncode == 1, done.stdout
    assert "avx512_vnni  NOT EXERCISED" in done.stdout
    assert "a level that no test has exercised" in done.stdout


@pytest.mark.parametrize("narrowed", [("-k", "unrelated"), ("tests/test_suite.py",)], ids=str)
def test_narrowed_run_need_not_exercise_all(tmp_path: Path, narrowed: tuple[str, ...]) -> None:
    done = run_suite(tmp_path, AVX512 | {"avx512_vnni"}, *narrowed)
    assert done.returncode == 0, done.stdout
    assert "NOT EXERCISED" in done.stdout


def test_levels_are_collected_from_xdist_workers(tmp_path: Path) -> None:
    done = run_suite(tmp_path, AVX512, "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "avx512       exercised" in done.stdout


def test_levels_are_those_of_the_package() -> None:
    assert set(targets.LEVELS) == set(isa.LEVELS)
