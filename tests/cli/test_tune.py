"""`lowgemm tune`, `tuning-db` and `compile --tuning-db` hand on what they are told, and word what is wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lowgemm
from lowgemm import schedules, targets
from lowgemm.cli import main
from lowgemm.tune._database import Database, Record

from fake_tuning import CPU, conv_task

TASK = conv_task()
SPACE = schedules.config_space(TASK)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def error(*arguments: Any) -> str:
    result = run(*arguments)
    assert result.exit_code == 2 and result.exception.__class__ is SystemExit
    (line,) = result.stderr.splitlines()[-1:]
    return line


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Three trials, of which the second won."""
    path = tmp_path / "db.jsonl"
    made = Database(path)
    first = Record(TASK, SPACE[0], CPU, 2e-4, 1.0, 0.01, True)
    made.append(first)
    made.append(replace(first, config=SPACE[1], seconds=1e-4, relative=0.5))
    made.append(Record(TASK, SPACE[2], CPU, failure="crash: SIGSEGV"))
    return path


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each call of the tuner, in whose place a fake stands."""
    calls: list[dict[str, Any]] = []

    def tune(progress, report, **arguments: Any) -> list:
        calls.append(arguments)
        return []

    monkeypatch.setattr(lowgemm, "tune", tune)
    return calls


def test_flags_are_handed_on(tuned: list[dict[str, Any]], tmp_path: Path) -> None:
    run(
        *("tune", "model.onnx", "--target", "avx2", "--trials", 7, "--tuning-db", "db.jsonl"),
        *("--threads", 3, "--shape", "x=1x3", "--seed", 5, "--rpc", "here:1", "--key", "k"),
    )
    assert tuned == [
        {
            "model": Path("model.onnx"),
            "shapes_file": None,
            "tuning_db": Path("db.jsonl"),
            "target": "avx2",
            "trials": 7,
            "threads": 3,
            "calibration": None,
            "shapes": {"x": (1, 3)},
            "seed": 5,
            "rpc": "here:1",
            "key": "k",
        }
    ]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "Missing option '--tuning-db'" in error("tune", "model.onnx")
    assert "name a MODEL, or kernels with --shapes" in error("tune", "--tuning-db", "db.jsonl")
    missing = error("tune", "--tuning-db", tmp_path / "none", "--report", tmp_path / "r.html")
    assert "no file" in missing


def test_arguments_that_contradict(tmp_path: Path) -> None:
    common = ("--tuning-db", tmp_path / "db.jsonl")
    both = error("tune", "model.onnx", "--shapes", "s.txt", *common)
    assert "tune a model or a file of shapes, one of them" in both
    assert "both rpc (HOST:PORT) and key (NAME)" in error(
        "tune", "model.onnx", *common, "--rpc", "here:1"
    )
    assert 'unknown target "avx3"' in error("tune", "m.onnx", *common, "--target", "avx3")
    assert "does not exist" in error(
        "tune", "m.onnx", "--tuning-db", tmp_path / "none" / "db.jsonl"
    )
    assert "cannot write" in error(
        "tune", "m.onnx", *common, "--report", tmp_path / "none" / "r.html"
    )


def test_a_target_that_does_not_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this host nor reachable: refused, with the reason and the way out."""
    monkeypatch.setattr(targets, "host_features", lambda: frozenset({"avx2", "fma"}))
    text = error("tune", "m.onnx", "--tuning-db", tmp_path / "db", "--target", "avx512_vnni")
    assert "cannot tune for avx512_vnni here: this CPU lacks f16c" in text
    assert "--rpc HOST:PORT --key NAME" in text


def test_without_xgboost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    text = error("tune", "m.onnx", "--tuning-db", tmp_path / "db", "--target", "avx2")
    assert "tuning needs xgboost: pip install 'lowgemm[tune]'" in text


def test_compile_takes_a_database_that_is_there(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"")
    none = tmp_path / "none.jsonl"
    text = error("compile", model, "-o", tmp_path / "m.so", "--tuning-db", none)
    assert f"there is no tuning database {none}" in text


def test_the_best_are_shown(database: Path) -> None:
    result = run("tuning-db", "best", database)
    (row,) = [line for line in result.stdout.splitlines() if str(TASK) in line]
    assert row.split()[-2:] == ["100.0", "2.000"]
    assert " ".join(f"{k}={v}" for k, v in schedules.config_to_json(SPACE[1]).items()) in row


def test_databases_are_merged_and_pruned(database: Path, tmp_path: Path) -> None:
    merged = tmp_path / "all.jsonl"
    assert run("tuning-db", "merge", database, database, "-o", merged).exit_code == 0
    assert Database(merged).records == Database(database).records
    result = run("tuning-db", "prune", merged)
    assert "removed 1 trials" in result.stderr
    assert len(Database(merged).records) == 2


def test_a_damaged_line_is_reported(database: Path) -> None:
    with database.open("a") as file:
        file.write("{}\n")
    assert "line 4 is skipped" in run("tuning-db", "best", database).stderr


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    for command in ("best", "prune"):
        assert "no file" in error("tuning-db", command, tmp_path / "none")


def test_the_report(database: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run("tune", "--tuning-db", database, "--report", page).exit_code == 0
    text = page.read_text()
    assert "200.0 us" in text and "100.0 us" in text and "100.0%" in text  # twice as fast
    assert text.count("<polyline") == 1 and "1 failed" in text and "crash: SIGSEGV" in text
    assert "qconv2d 1x14x14x64-&gt;64" in text, "what a name holds is escaped"
    assert "src=" not in text and "href=" not in text, "one file, nothing fetched"


def test_the_report_of_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "db.jsonl").write_text("")
    text = error("tune", "--tuning-db", tmp_path / "db.jsonl", "--report", tmp_path / "r.html")
    assert "db.jsonl holds no trial that worked" in text
