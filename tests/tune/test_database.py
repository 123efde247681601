"""The database keeps what was written, whatever happens beside it, and chooses what compiling uses."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lowgemm import schedules
from lowgemm.errors import TuningError
from lowgemm.tune._database import SCHEMA, Database, Record, configs_for, merge, prune

from fake_tuning import CPU, append_in_a_process, conv_task, depthwise_task

TASK = conv_task()
SPACE = schedules.config_space(TASK)
OTHER_CPU = "another (1-1-1)"


def record(index: int = 0, relative: float = 1.0, won: bool = True, **changes) -> Record:
    made = Record(TASK, SPACE[index], CPU, 1e-4 * relative, relative, 0.01, won)
    return replace(made, **changes)


def failed(index: int, reason: str = "crash: SIGSEGV") -> Record:
    return Record(TASK, SPACE[index], CPU, failure=reason)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuning.jsonl"


def filled(path: Path, *records: Record) -> Database:
    database = Database(path)
    for each in records:
        assert database.append(each)
    return database


def test_records_come_back_as_they_were(path: Path) -> None:
    own = Record(depthwise_task(), schedules.config_space(depthwise_task())[0], CPU, 1.0, 1.0, 0.0)
    records = [record(0), record(1, 0.5), failed(2), own]
    filled(path, *records)
    assert Database(path).records == records


def test_details_of_a_record_are_kept(path: Path) -> None:
    filled(path, record(details={"host": {"node": "here"}, "times": {"candidate": [1e-4]}}))
    (found,) = Database(path).records
    assert found.details == {"host": {"node": "here"}, "times": {"candidate": [1e-4]}}
    assert json.loads(path.read_text())["schema"] == SCHEMA


def test_a_trial_is_recorded_once(path: Path) -> None:
    database = filled(path, record(0))
    assert not database.append(record(0, 0.5))
    assert not Database(path).append(record(0, 0.5)), "another tuner knows it from the file"
    assert database.append(record(0, cpu=OTHER_CPU)), "another CPU is another trial"
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json", "line 2 is skipped"),
        (b"\xff\xfe\x00", "line 2 is skipped"),
        (b"[1, 2]", "line 2 is skipped"),
        (b'{"schema": 1}', "line 2 is skipped: 'task'"),
        (b'{"schema": 99}', "schema 99, this lowgemm reads up to 1: install a newer one"),
        (b"[" * 100000, "line 2 is skipped"),
    ],
    ids=["no-json", "binary", "no-object", "no-task", "newer-schema", "nested-deeply"],
)
def test_a_damaged_line_is_reported_and_skipped(path: Path, line: bytes, reason: str) -> None:
    filled(path, record(0))
    with path.open("ab") as file:
        file.write(line + b"\n")
    filled(path, record(1))
    reports: list[str] = []
    assert Database(path, reports.append).records == [record(0), record(1)]
    (report,) = reports
    assert reason in report and str(path) in report and "\n" not in report


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": {"rows": 0}}, "at least 1|missing"),
        ({"config": None}, "line 1 is skipped"),
        ({"seconds": -1.0}, "its times are no times"),
        ({"relative": None}, "line 1 is skipped"),
        ({"relative": float("nan")}, "its times are no times"),
    ],
)
def test_a_record_that_cannot_be_is_skipped(path: Path, change: dict, reason: str) -> None:
    filled(path, record(0))
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **change}) + "\n")
    reports: list[str] = []
    assert Database(path, reports.append).records == []
    assert len(reports) == 1 and re.search(reason, reports[0])


def test_a_configuration_that_no_longer_fits_is_skipped(path: Path) -> None:
    filled(path, record(0))
    data = json.loads(path.read_text())
    data["config"].update(columns=1, vectors=3)  # which do not divide 8 vectors of outputs
    path.write_text(json.dumps(data) + "\n")
    reports: list[str] = []
    assert Database(path, reports.append).records == []
    assert "do not divide" in reports[0]


def test_what_a_killed_writer_left_does_not_spoil_the_next_line(path: Path) -> None:
    filled(path, record(0))
    with path.open("ab") as file:
        file.write(b'{"schema": 1, "task": {"fam')
    reports: list[str] = []
    database = Database(path, reports.append)
    assert database.records == [record(0)] and not reports, "it may still be being written"
    assert database.append(record(1))
    assert database.records == [record(0), record(1)]
    assert Database(path).records == [record(0), record(1)]


def test_what_others_append_is_seen(path: Path) -> None:
    mine, theirs = Database(path), Database(path)
    theirs.append(record(0))
    mine.refresh()
    assert mine.records == [record(0)]
    theirs.append(record(1))
    assert mine.append(record(2))
    assert mine.records == [record(0), record(1), record(2)]


def test_two_tuners_share_a_file(path: Path, processes) -> None:
    """Processes append at the same time, half of it the same trials."""
    jobs = [(0, 30), (15, 30), (0, 45)]
    started = [
        processes.Process(target=append_in_a_process, args=(str(path), *job)) for job in jobs
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0
    reports: list[str] = []
    found = Database(path, reports.append).records
    assert not reports
    assert len(path.read_text().splitlines()) == len(found) == 45
    assert {r.config for r in found} == {*SPACE[:45]}


def test_an_append_is_on_the_disk_before_it_returns(path: Path, monkeypatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_size) or real(d))
    filled(path, record(0))
    assert path.stat().st_size in synced


def test_the_best_of_those_that_won_is_used(path: Path) -> None:
    database = filled(path, record(0), record(1, 0.8), record(2, 0.5, won=False), record(3, 0.9))
    assert configs_for(database.records, CPU) == {TASK.key: SPACE[1]}


def test_this_cpu_counts_before_others(path: Path) -> None:
    database = filled(path, record(0), record(1, 0.9), record(2, 0.5, cpu=OTHER_CPU))
    assert configs_for(database.records, CPU) == {TASK.key: SPACE[1]}
    assert configs_for(database.records, "a third") == {TASK.key: SPACE[2]}


def test_what_beat_nothing_is_left_to_the_heuristics(path: Path) -> None:
    database = filled(path, record(0), record(1, 1.2, won=False))
    assert configs_for(database.records, CPU) == {}


def test_an_amended_record_takes_the_first_ones_place(path: Path) -> None:
    database = filled(path, record(0), record(1, 0.8), record(2, 0.9))
    database.amend(record(1, 0.8, won=False))
    found = Database(path).records
    assert database.records == found == [record(0), record(1, 0.8, won=False), record(2, 0.9)]
    assert configs_for(found, CPU) == {TASK.key: SPACE[2]}


def test_extras_of_the_target_do_not_hide_a_configuration(path: Path) -> None:
    """The host's features beyond its level (VBMI) play no part in these kernels."""
    target = replace(TASK.target, features=(*TASK.target.features, "avx512vbmi"))
    database = filled(path, record(0, 0.5, task=replace(TASK, target=target)))
    assert TASK.key in configs_for(database.records, CPU)


def test_merge_keeps_each_trial_once(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    filled(first, record(0), record(1))
    filled(second, record(1, 0.7), record(2))
    assert merge([first, second], tmp_path / "all.jsonl") == 3
    assert Database(tmp_path / "all.jsonl").records == [record(0), record(1, 0.7), record(2)]


def test_merge_may_write_one_of_its_inputs(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    filled(first, record(0))
    filled(second, record(1))
    merge([first, second], first)
    assert len(Database(first).records) == 2


def test_merge_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"there is no tuning database .*missing\.jsonl"):
        merge([tmp_path / "missing.jsonl"], tmp_path / "all.jsonl")


def test_prune_keeps_the_first_and_the_best(path: Path) -> None:
    trials = (record(0), record(1, 0.9), record(2, 0.8), record(3, 0.95, won=False), failed(4))
    database = filled(path, *trials)
    before = configs_for(database.records, CPU)
    assert database.rewrite(prune) == 3
    assert database.records == Database(path).records == [record(0), record(2, 0.8)]
    assert configs_for(database.records, CPU) == before


def test_a_tuner_goes_on_in_a_file_that_was_pruned(path: Path) -> None:
    tuner = filled(path, record(0), record(1, won=False))
    Database(path).rewrite(prune)
    assert tuner.append(record(2))
    assert tuner.records == Database(path).records == [record(0), record(2)]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="is a folder; name a file"):
        Database(tmp_path)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"cannot write .*No such file or directory"):
        Database(tmp_path / "missing" / "db.jsonl").append(record(0))
