"""Time several ways of doing the same work, in turns, so that what disturbs one disturbs all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Workers of some engines spin on for tens of milliseconds after a run, on the core of whoever is
# timed next. This is how long to look whether any still do, and when to stop hoping.
_PAUSE_SECONDS = 0.003
_QUIET_SHARE = 0.2
_MOST_SETTLING_SECONDS = 0.5
# After another contestant's turn the caches fill again, unmeasured.
_WARM_UP = 2
# One turn is long enough that going round costs little, short enough for many rounds.
_TURN_SECONDS = 0.03
_MAX_TURN_RUNS = 1000
_MIN_ROUNDS = 10
# Engines have reference code for what they have no kernel for, which may take half a minute: one run of a contestant
# that takes longer than this is enough, and one round of one that is so many times slower than the fastest.
_LONG_SECONDS = 1.0
_FAR_SLOWER = 30

# The name under which `interleaved` returns the times of its gauge.
GAUGE = "gauge"

# Does the work so many times and returns the seconds of each.
Turn = Callable[[int], list[float]]


@dataclass(frozen=True)
class Times:
    """What many runs of one contestant took, in microseconds each."""

    median: float
    p10: float
    p90: float
    runs: int

    @staticmethod
    def of(seconds: Sequence[float]) -> "Times":
        p10, median, p90 = (float(v) * 1e6 for v in np.percentile(seconds, (10, 50, 90)))
        return Times(median, p10, p90, len(seconds))


def from_python(run: Callable[[], object]) -> Turn:
    """A contestant that is called from Python, whose call is part of the time."""

    def turn(runs: int) -> list[float]:
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return seconds

    return turn


def interleaved(
    contestants: Mapping[str, Turn],
    seconds: float,
    before_run: Callable[[], object] | None = None,
    gauge: Turn | None = None,
) -> dict[str, Times]:
    """Run every contestant in turn, round after round, for about `seconds`.

    Args:
        contestants: what to time, by name.
        before_run: called before each run, unmeasured, to flush the caches. A turn is one run then.
        gauge: has turns as a contestant has, but is no yardstick for who is slow.

    Contestants that take very long have fewer runs than the others: `Times.runs` says how many.
    """
    samples: dict[str, list[float]] = {}
    estimates: dict[str, float] = {}
    for name, turn in contestants.items():
        samples[name] = turn(1)
        if samples[name][0] <= _LONG_SECONDS:
            samples[name] = []
            estimates[name] = max(min(turn(_WARM_UP)), 1e-7)
    order = list(estimates)
    far = _FAR_SLOWER * min(estimates.values(), default=0)
    if gauge and order:
        contestants = {**contestants, GAUGE: gauge}
        samples[GAUGE], estimates[GAUGE] = [], max(min(gauge(_WARM_UP)), 1e-7)
        order.append(GAUGE)
    deadline = time.perf_counter() + seconds
    rounds = 0
    while order and (rounds < _MIN_ROUNDS or time.perf_counter() < deadline):
        for name in order:
            turn = contestants[name]
            _settle()
            turn(_WARM_UP)
            if before_run:
                before_run()
            samples[name].extend(turn(1 if before_run else _turn_length(estimates[name])))
        if rounds == 0:
            order = [name for name in order if name == GAUGE or estimates[name] <= far]
        order.append(order.pop(0))  # nobody always follows the same one
        rounds += 1
    return {name: Times.of(taken) for name, taken in samples.items()}


def _settle() -> None:
    """Wait until no thread of this process computes anything."""
    for _ in range(round(_MOST_SETTLING_SECONDS / _PAUSE_SECONDS)):
        used = time.process_time()
        time.sleep(_PAUSE_SECONDS)
        if time.process_time() - used < _QUIET_SHARE * _PAUSE_SECONDS:
            break


def _turn_length(once: float) -> int:
    return int(np.clip(_TURN_SECONDS / once, 1, _MAX_TURN_RUNS))


def cache_flusher(last_level_bytes: int) -> Callable[[], object]:
    """A function that replaces everything in the caches, by writing twice their size."""
    buffer = np.zeros(max(2 * last_level_bytes, 32 << 20), np.uint8)

    def flush() -> None:
        np.add(buffer, 1, out=buffer)

    return flush
