"""Rows, summaries and how they are written."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowgemm.bench import record
from lowgemm.bench.record import RecordFile, Row
from lowgemm.bench.timing import Times
from lowgemm.errors import RecordError

HOST = {"host": "here", "cpu": "some", "level": "avx2", "commit": "0123"}
# Of each row; the readers take these names.
KEYS = {
    *("name", "shape", "dtype", "threads", "state", "lowgemm_us", "peers_us", "ratio", "gops"),
    *("peak_share", "wrong_us", "ratio_any", "failures", "errors"),
}


def times(us: float) -> Times:
    """A median in microseconds; the tenth percentile is half of it."""
    return Times(us, us / 2, us * 2, 10)


def row(
    lowgemm: float | None = None, wrong: float | None = None, name="net", **peers: float
) -> Row:
    """A row with these medians in microseconds; `wrong` is that of a peer with a wrong result."""
    medians = ({} if lowgemm is None else {"lowgemm": lowgemm}) | peers
    failures = {} if lowgemm is not None else {"lowgemm": "TypeError: no"}
    bad = {} if wrong is None else {"bad": times(wrong)}
    return Row(
        name, "x 1x3", "u8s8", 2, "warm", 3_000_000, 1000.0,
        {key: times(us) for key, us in medians.items()},
        wrong=bad,
        errors=dict.fromkeys(medians, 0.5),
        failures=failures | dict.fromkeys(bad, "wrong result: 9.0% off the reference"),
        roofline_us=5.0,
    )  # fmt: skip


def summarize(*rows: Row) -> dict[str, Any]:
    return record.summarize([each.to_json() for each in rows])


def test_the_ratio_is_to_the_fastest_peer() -> None:
    found = row(lowgemm=20.0, slow=100.0, fast=30.0)
    assert found.best_peer == "fast"
    assert found.ratio == found.ratio_p10 == found.ratio_any == 1.5


def test_a_wrong_peer_is_shown_and_does_not_count() -> None:
    found = row(lowgemm=20.0, peer=30.0, wrong=10.0)
    assert (found.best_peer, found.ratio, found.ratio_any) == ("peer", 1.5, 0.5)
    as_json = found.to_json()
    assert as_json["peers_us"] == {"peer": 30.0}
    assert as_json["wrong_us"] == {"bad": 10.0}
    assert as_json["failures"]["bad"].startswith("wrong result")
    summary = summarize(found, row(lowgemm=20.0, peer=30.0))
    assert (summary["min_ratio"], summary["min_ratio_any"]) == (1.5, 0.5)
    assert (summary["wrong"], summary["failed"]) == ({"bad": 1}, {})
    assert "bad                     10.0 us" in record.render(found)
    assert "WRONG" in record.render(found) and "right or wrong: 0.50" in record.render(found)
    assert "wrong: bad in 1 rows" in record.render_summary(summary)


def test_only_wrong_peers_leave_no_ratio() -> None:
    found = row(lowgemm=20.0, wrong=10.0)
    assert (found.best_peer, found.ratio, found.ratio_any) == (None, None, 0.5)


def test_a_row_has_the_keys_that_readers_take() -> None:
    assert row(lowgemm=20.0).to_json().keys() >= KEYS
    assert summarize(row()).keys() >= {"geomean_ratio", "min_ratio", "rows_won"}


def test_a_multiply_accumulate_is_two_operations() -> None:
    found = row(lowgemm=20.0).to_json()
    assert found["gops"] == 300.0
    assert found["peak_share"] == 0.3
    assert found["roofline_share"] == 0.25


@pytest.mark.parametrize("found", [row(peer=30.0), row(lowgemm=20.0)], ids=["own", "peers"])
def test_without_a_contestant_there_is_no_ratio(found: Row) -> None:
    assert found.ratio is None and found.ratio_p10 is None and found.ratio_any is None
    summary = summarize(found)
    assert (summary["rows"], summary["rows_compared"], summary["rows_won"]) == (1, 0, 0)
    assert summary["geomean_ratio"] is None
    assert "none compared" in record.render_summary(summary)


def test_a_summary_counts_rows_that_failed_as_not_won() -> None:
    summary = summarize(row(lowgemm=10.0, peer=20.0), row(lowgemm=20.0, peer=10.0), row(peer=10.0))
    assert summary["geomean_ratio"] == pytest.approx(1.0)
    assert summary["min_ratio"] == 0.5
    assert (summary["rows_won"], summary["share_won"]) == (1, 1 / 3)
    assert summary["failed"] == {"lowgemm": 1}


def test_a_summary_has_one_for_each_list_of_rows() -> None:
    rows = [row(lowgemm=10.0, peer=20.0, name=name) for name in "aab"]
    by_name = summarize(*rows)["by_name"]
    assert {name: part["rows"] for name, part in by_name.items()} == {"a": 2, "b": 1}
    assert "by_name" not in summarize(*rows[1:]), "each has a name of its own"


def test_a_written_record_holds_host_rows_and_summary(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    kept = RecordFile(path, HOST)
    for each in (row(lowgemm=10.0, peer=20.0), row(peer=10.0)):
        kept.add(each)
        assert record.read(path)["rows"] == kept.rows, "after every row"
    found: dict[str, Any] = json.loads(path.read_text())
    assert found["host"] == HOST
    assert found["rows"][0]["peers_us"] == {"peer": 20.0}
    assert found["rows"][1]["lowgemm_us"] is None
    assert found["summary"] == record.summarize(found["rows"])
    assert [each.name for each in path.parent.iterdir()] == ["record.json"]


def test_a_record_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    RecordFile(path, HOST | {"date": "yesterday"}).add(row(lowgemm=10.0, name="a"))
    kept = RecordFile(path, HOST | {"date": "today"}, resume=True)
    assert kept.has(name="a", shape="x 1x3", state="warm")
    assert not kept.has(name="a", shape="x 1x3", state="flushed") and not kept.has(name="b")
    kept.add(row(lowgemm=10.0, name="b"))
    found = record.read(path)
    assert [each["name"] for each in found["rows"]] == ["a", "b"]
    assert found["host"]["date"] == "yesterday"


@pytest.mark.parametrize("key", ["host", "cpu", "level", "commit"])
def test_rows_of_another_machine_or_commit_are_not_gone_on_with(key: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    RecordFile(path, HOST | {key: "another"}).add(row())
    with pytest.raises(RecordError, match=r"record.json was measured on another machine or commit"):
        RecordFile(path, HOST, resume=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("{", "is not JSON"), ("[]", "no host"), ("{}", "no host")],
)
def test_what_is_no_record_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordError, match=message):
        record.read(path)


def test_rows_say_how_they_scale(tmp_path: Path) -> None:
    one = [row(lowgemm=30.0, name="a").to_json(), row(name="b").to_json()]
    kept = RecordFile(tmp_path / "record.json", HOST, fewer=one)
    for name in "abc":
        kept.add(row(lowgemm=20.0, name=name))
    assert [each["scaling"] for each in kept.rows] == [1.5, None, None]
    summary = record.summarize(kept.rows)
    assert (summary["geomean_scaling"], summary["min_scaling"]) == (1.5, 1.5)


def test_rows_on_the_terminal_go_from_fast_to_slow() -> None:
    lines = record.render(row(lowgemm=2000.0, slow=3000.0, fast=500.0)).splitlines()
    firsts = [line.split()[0] for line in lines]
    assert firsts == ["net", "fast", "lowgemm", "slow", "roofline", "ratio"]
    assert "500.0 us" in lines[1] and "2.000 ms" in lines[2]
    assert "lowgemm" in record.render(row(peer=1.0)) and "TypeError: no" in record.render(row())


def test_a_reason_is_one_line() -> None:
    assert record.reason(ValueError("first\nsecond")) == "ValueError: first"
    assert record.reason(KeyError()) == "KeyError: no message"
