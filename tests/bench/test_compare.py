"""Results are checked before anybody is timed, and what is wrong does not count."""

from typing import Any

import numpy as np
import pytest

from lowgemm.bench.compare import Work, compare, distance
from lowgemm.bench.host import Setting

PEAKS = {
    "dot_gops": {"slow": 50.0, "fast": 100.0},
    "fma_gops": {"only": 10.0},
    "read_gb_per_s": {"L1": 200.0, "L2": 100.0, "memory": 10.0},
}
CACHES = {"L1": 1000, "L2": 10_000}
WORK = Work("list", "1x2x3", "u8s8", macs=50_000, moved=800, weight_bytes=100, read_rate=0.5)
RIGHT, WRONG = np.array([3.0, 4.0]), np.array([3.0, 5.0])


def setting(state: str = "warm") -> Setting:
    return Setting(1, 0.0, state, PEAKS, CACHES)


class Fake:
    """A contestant that says it takes `us` and gives `result`."""

    def __init__(self, result: np.ndarray, us: float, log: list[Any]) -> None:
        self.result, self.us, self.log = result, us, log

    def output(self) -> np.ndarray:
        self.log.append("checked")
        return self.result

    def __call__(self, runs: int) -> list[float]:
        self.log.append(self.us)
        return [self.us * 1e-6] * runs

    def close(self) -> None:
        self.log.append("closed")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowgemm.bench import timing

    monkeypatch.setattr(timing.time, "sleep", lambda _: None)


def run(log: list[Any], **results: np.ndarray | None):
    """lowgemm takes 1 us, the others 2, 3, ...; None is a contestant that cannot be made."""

    def make(result: np.ndarray | None, us: float) -> Fake:
        if result is None:
            raise RuntimeError("is not installed")
        return Fake(result, us, log)

    makers = {
        name: lambda result=result, us=us: make(result, float(us))
        for us, (name, result) in enumerate(results.items(), 1)
    }

    def check(name: str, found: np.ndarray) -> tuple[float, bool]:
        return distance(found, RIGHT), bool((found == RIGHT).all())

    return compare(WORK, makers, check, setting())


def test_everybody_is_checked_before_anybody_is_timed() -> None:
    log: list[Any] = []
    row = run(log, lowgemm=RIGHT, peer=RIGHT)
    assert log[:2] == ["checked", "checked"] and log[-2:] == ["closed", "closed"]
    assert set(log[2:-2]) == {1.0, 2.0}
    assert row.ratio == pytest.approx(2.0) and not row.failures
    assert row.read_share == pytest.approx(0.2), "100 bytes in 1 us of 0.5 GB/s"


def test_the_peak_is_that_of_the_same_rounds() -> None:
    """1 MMACs in 20 us are 100 GOPS, whatever was measured before; lowgemm does 50 000 in 1 us."""

    class Gauge(Fake):
        macs = 1_000_000

    gauge = Gauge(RIGHT, 20.0, [])
    makers = {"lowgemm": lambda: Fake(RIGHT, 1.0, [])}
    peaks = {**PEAKS, "dot_gops": {"before": 7.0}}
    gauged = Setting(1, 0.0, "warm", peaks, CACHES, gauges={"dot_gops": gauge})  # pyright: ignore[reportArgumentType]
    row = compare(WORK, makers, lambda *_: None, gauged)
    assert row.peak_gops == pytest.approx(100.0) and set(row.times) == {"lowgemm"}
    assert row.to_json()["peak_share"] == pytest.approx(1.0)


def test_a_wrong_peer_is_timed_apart() -> None:
    row = run([], lowgemm=RIGHT, bad=WRONG, good=RIGHT)
    assert set(row.times) == {"lowgemm", "good"} and set(row.wrong) == {"bad"}
    assert row.errors["bad"] == 0.2
    assert row.failures == {"bad": "wrong result: 20.0% off the reference"}
    assert row.ratio == pytest.approx(3.0) and row.ratio_any == pytest.approx(2.0)


def test_lowgemm_is_not_timed_with_a_wrong_result() -> None:
    log: list[Any] = []
    row = run(log, lowgemm=WRONG, peer=RIGHT)
    assert 1.0 not in log and row.ratio is None
    assert row.failures == {"lowgemm": "wrong result: 20.0% off the reference"}


def test_who_cannot_be_made_leaves_the_others() -> None:
    row = run([], lowgemm=RIGHT, absent=None, peer=RIGHT)
    assert row.failures == {"absent": "RuntimeError: is not installed"}
    assert row.best_peer == "peer"


@pytest.mark.parametrize(
    ("state", "kind", "macs", "moved", "us"),
    [
        ("warm", "dot_gops", 50_000, 800, 1.0),  # by products
        ("warm", "fma_gops", 50_000, 800, 10.0),
        ("warm", "dot_gops", 1, 800, 0.004),  # in the first cache
        ("warm", "dot_gops", 1, 8000, 0.075),
        ("warm", "dot_gops", 1, 80_000, 7.005),
        ("flushed", "dot_gops", 1, 800, 0.08),
    ],
)
def test_the_roofline_is_the_slower_of_products_and_bytes(
    state: str, kind: str, macs: int, moved: int, us: float
) -> None:
    assert setting(state).roofline_us(kind, macs, moved) == pytest.approx(us)
