"""conftest.py: skips name the missing features, and a level left out fails the whole suite.

Each test runs pytest on a small suite of its own, on a CPU that has what the test says.
"""

import os
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

# Cases of two operators, each at its levels.
TABLE = """
import os
from pathlib import Path

import isa
import pytest


@pytest.mark.parametrize("level", isa.isas("avx2", "avx_vnni"))
@pytest.mark.parametrize("part", range(3))
def test_gemm(level, part, conformance):
    conformance("gemm", level, 5)


def test_conv(conformance):
    conformance("conv", "avx2")


def test_cache():
    folder = Path(os.environ["LOWGEMM_CACHE"])
    (folder / "kernel").touch()
    Path("cache").write_text(str(folder))
"""


# In place of the emulator.
EMULATED = """
from contextlib import contextmanager

missing = lambda: {missing!r}


@contextmanager
def cpu(level):
    print("emulating", level)
    yield
"""


def run_suite(
    folder: Path,
    flags: set[str],
    *arguments: str,
    suite: str = SUITE,
    file: str = "test_suite.py",
    missing: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `suite` under this folder's conftest.py on a CPU with `flags`; `missing` says why there is no emulator."""
    tests = folder / "tests"
    tests.mkdir(parents=True)
    shutil.copy(HERE / "conftest.py", tests)
    source = (HERE / "isa.py").read_text()
    (tests / "isa.py").write_text(f"{source}\n\nFLAGS = frozenset({sorted(flags)!r})\n")
    (tests / "emulated.py").write_text(EMULATED.format(missing=missing))
    (tests / file).parent.mkdir(exist_ok=True)
    (tests / file).write_text(suite)
    shutil.copy(HERE.parent / "pyproject.toml", folder)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("LOWGEMM_CACHE", "PYTEST_ADDOPTS")
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
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


def row(op: str, *cells: str) -> list[str]:
    """A row of the table, whose other levels are not on the CPU."""
    levels = sum(cell != "emulated" for cell in cells)
    return [op, *cells, *["-"] * (len(isa.LEVELS) - levels)]


def test_table_of_conformance(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2"}, "-n", "2", suite=TABLE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert row("gemm", "15") in rows
    assert row("conv", "1") in rows


def test_tests_of_operators_are_cases(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2"}, "-n", "2", suite=SUITE, file="ops/test_add.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ["ops/add", "1", "-", "-", "-", "-"] in [x.split() for x in done.stdout.splitlines()]
    done = run_suite(tmp_path / "other", {"avx2"}, suite=SUITE)
    assert "ops/" not in done.stdout


@pytest.mark.parametrize("narrowed", [(), ("tests/test_suite.py",)], ids=["whole", "file"])
def test_operator_without_cases_at_a_level_fails(tmp_path: Path, narrowed) -> None:
    done = run_suite(tmp_path, {"avx2", "avx_vnni"}, *narrowed, suite=TABLE)
    assert done.returncode == 1, done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert row("gemm", "15", "15") in rows
    assert row("conv", "1", "none") in rows
    assert "FAILED: not compared with the oracle at a level of this CPU: conv" in done.stdout


@pytest.mark.parametrize("narrowed", [("-k", "conv"), ("tests/test_suite.py::test_conv",)], ids=str)
def test_narrowed_run_need_not_compare_all(tmp_path: Path, narrowed: tuple[str, ...]) -> None:
    done = run_suite(tmp_path, {"avx2", "avx_vnni"}, *narrowed, suite=TABLE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_workers_share_a_cache_that_goes_with_the_run(tmp_path: Path, workers) -> None:
    done = run_suite(tmp_path, {"avx2"}, *workers, suite=TABLE)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path((tmp_path / "cache").read_text())
    assert folder.name.startswith("lowgemm-tests-")
    assert not folder.exists()


MARKED = TABLE.replace(
    '@pytest.mark.parametrize("level"', '@pytest.mark.emulated\n@pytest.mark.parametrize("level"'
)


def test_marked_tests_are_emulated(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2"}, "-n", "2", suite=MARKED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "avx_vnni     exercised in an emulator; not on this CPU (lacks avx_vnni)" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert row("gemm", "15", "15", "emulated") in rows
    assert row("conv", "1") in rows


def test_other_tests_are_emulated_if_asked_for(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2"}, "-s", "--emulate", suite=TABLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("emulating avx_vnni") == 3
    assert "15 emulated" in done.stdout


def test_level_of_the_cpu_is_not_emulated(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2", "avx_vnni"}, "-s", "--emulate", "-k", "gemm", suite=MARKED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "emulating" not in done.stdout and "emulated" not in done.stdout


def test_missing_emulator_fails_by_name(tmp_path: Path) -> None:
    done = run_suite(tmp_path, {"avx2"}, suite=MARKED, missing="there is no wheel")
    assert done.returncode == 1
    assert "avx_vnni: this CPU lacks avx_vnni, and there is no wheel" in done.stdout


def test_levels_are_those_of_the_package() -> None:
    assert set(targets.LEVELS) == set(isa.LEVELS)
