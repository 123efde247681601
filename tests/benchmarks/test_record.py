"""Rows, summaries and how they are written."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record
from benchmarks.record import Row
from benchmarks.timing import Times


def row(lowgemm: float | None = None, **peers: float) -> Row:
    """A row with these medians in microseconds; tenth percentiles are half of them."""
    medians = ({} if lowgemm is None else {"lowgemm": lowgemm}) | peers
    times = {name: Times(us, us / 2, us * 2, 10) for name, us in medians.items()}
    failures = {} if lowgemm is not None else {"lowgemm": "TypeError: no"}
    return Row(
        "net", "x 1x3", "u8s8", 2, "warm", 3_000_000, 1000.0, times,
        errors=dict.fromkeys(times, 0.5), failures=failures,
    )  # fmt: skip


def test_the_ratio_is_to_the_fastest_peer() -> None:
    found = row(lowgemm=20.0, slow=100.0, fast=30.0)
    assert found.best_peer == "fast"
    assert found.ratio == 1.5
    assert found.ratio_p10 == 1.5


def test_a_multiply_accumulate_is_two_operations() -> None:
    found = row(lowgemm=20.0).to_json()
    assert found["gops"] == 300.0
    assert found["peak_share"] == 0.3


@pytest.mark.parametrize("found", [row(peer=30.0), row(lowgemm=20.0)], ids=["own", "peers"])
def test_without_a_contestant_there_is_no_ratio(found: Row) -> None:
    assert found.ratio is None
    assert found.ratio_p10 is None
    summary = record.summarize([found])
    assert (summary["rows"], summary["rows_compared"], summary["rows_won"]) == (1, 0, 0)
    assert summary["geomean_ratio"] is None
    assert "none compared" in record.render_summary(summary)


def test_a_summary_counts_rows_that_failed_as_not_won() -> None:
    rows = [row(lowgemm=10.0, peer=20.0), row(lowgemm=20.0, peer=10.0), row(peer=10.0)]
    summary = record.summarize(rows)
    assert summary["geomean_ratio"] == pytest.approx(1.0)
    assert summary["min_ratio"] == 0.5
    assert (summary["rows_won"], summary["share_won"]) == (1, 1 / 3)


def test_a_written_record_holds_host_rows_and_summary(tmp_path: Path) -> None:
    rows = [row(lowgemm=10.0, peer=20.0), row(peer=10.0)]
    path = record.path("models", 2, directory=tmp_path / "new")
    record.write(path, {"host": "here"}, rows)
    found: dict[str, Any] = json.loads(path.read_text())
    assert found["host"] == {"host": "here"}
    assert found["rows"] == [r.to_json() for r in rows]
    assert found["summary"] == record.summarize(rows)
    assert found["rows"][0]["peers_us"] == {"peer": 20.0}
    assert found["rows"][1]["lowgemm_us"] is None


def test_flushed_caches_have_records_of_their_own() -> None:
    assert record.path("gemm", 1).name == "gemm-1t.json"
    assert record.path("gemm", 1, "flushed").name == "gemm-1t-flushed.json"


def test_rows_on_the_terminal_go_from_fast_to_slow() -> None:
    lines = record.render(row(lowgemm=2000.0, slow=3000.0, fast=500.0)).splitlines()
    assert [line.split()[0] for line in lines] == ["net", "fast", "lowgemm", "slow", "ratio"]
    assert "500.0 us" in lines[1] and "2.000 ms" in lines[2]
    assert "lowgemm" in record.render(row(peer=1.0)) and "TypeError: no" in record.render(row())


def test_a_reason_is_one_line() -> None:
    assert record.reason(ValueError("first\nsecond")) == "ValueError: first"
    assert record.reason(KeyError()) == "KeyError: no message"
