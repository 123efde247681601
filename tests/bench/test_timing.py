"""Contestants take turns, and every measured run has the caches that were asked for."""

from collections.abc import Callable

import pytest

from lowgemm.bench import timing
from lowgemm.bench.timing import Times


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.time, "sleep", lambda _: None)


def contestant(log: list[str], name: str, seconds: float) -> Callable[[int], list[float]]:
    """One that claims to have taken `seconds`, and writes its name for each run into `log`."""

    def turn(runs: int) -> list[float]:
        log.extend([name] * runs)
        return [seconds] * runs

    return turn


def test_everyone_has_as_many_turns() -> None:
    log: list[str] = []
    contestants = {"a": contestant(log, "a", 2**-7), "b": contestant(log, "b", 2**-6)}
    times = timing.interleaved(contestants, seconds=0)
    # A turn lasts 30 ms; there are 10 rounds when no time is left.
    assert times == {
        "a": Times(7812.5, 7812.5, 7812.5, runs=30),
        "b": Times(15625.0, 15625.0, 15625.0, runs=10),
    }


def test_a_gauge_has_turns_and_is_no_yardstick() -> None:
    """Beside it, someone 64 times as slow still has every round."""
    log: list[str] = []
    times = timing.interleaved(
        {"a": contestant(log, "a", 2**-6)}, 0, gauge=contestant(log, "g", 2**-12)
    )
    assert times["a"].runs == 10
    assert times[timing.GAUGE] == Times(*[2**-12 * 1e6] * 3, runs=10 * 122)


def test_nobody_always_follows_the_same_one() -> None:
    log: list[str] = []
    contestants = {name: contestant(log, name, 1.0) for name in "abc"}
    timing.interleaved(contestants, seconds=0)
    turns = "".join(
        log[-3 * 10 * 3 :: 3]
    )  # after the trials; two runs to warm up and a measured one
    assert turns[:9] == "abc" + "bca" + "cab"


def test_caches_are_flushed_right_before_each_measured_run() -> None:
    log: list[str] = []
    contestants = {name: contestant(log, name, 0.001) for name in "ab"}
    times = timing.interleaved(contestants, 0, before_run=lambda: log.append("flush"))
    assert [entry.runs for entry in times.values()] == [10, 10]
    text = "".join("!" if entry == "flush" else entry for entry in log)
    assert (
        text == "aaabbb" + "aa!abb!bbb!baa!a" * 5
    )  # a first run and two more tell how long one takes


def test_who_takes_very_long_has_one_run() -> None:
    log: list[str] = []
    contestants = {"a": contestant(log, "a", 0.001), "b": contestant(log, "b", 1.5)}
    times = timing.interleaved(contestants, seconds=0)
    assert (times["a"].runs, times["b"].runs) == (300, 1)
    assert log.count("b") == 1


def test_who_is_far_slower_than_the_fastest_has_one_round() -> None:
    log: list[str] = []
    contestants = {
        name: contestant(log, name, s) for name, s in zip("abc", (2**-7, 2**-3, 2**-2), strict=True)
    }
    times = timing.interleaved(contestants, seconds=0)
    # 16 and 32 times as slow as the fastest.
    assert [times[name].runs for name in "abc"] == [30, 10, 1]


@pytest.mark.parametrize(("busy", "pauses"), [(0, 1), (5, 6), (10**6, 167)])
def test_a_turn_begins_when_the_last_ones_threads_are_quiet(
    busy: int, pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers compute through `busy` pauses; those that never stop are waited for half a second."""
    slept: list[float] = []
    monkeypatch.setattr(timing.time, "sleep", slept.append)
    monkeypatch.setattr(timing.time, "process_time", lambda: 0.003 * min(len(slept), busy))
    timing._settle()
    assert len(slept) == pauses


def test_percentiles_are_in_microseconds() -> None:
    found = Times.of([index * 1e-6 for index in range(101)])
    assert (found.p10, found.median, found.p90) == pytest.approx((10, 50, 90))
    assert found.runs == 101


def test_a_function_of_python_is_called_as_often_as_asked() -> None:
    calls: list[int] = []
    seconds = timing.from_python(lambda: calls.append(1))(7)
    assert len(calls) == len(seconds) == 7
    assert all(second >= 0 for second in seconds)
