"""Time several ways of doing the same work, in turns, so that what disturbs one disturbs all."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# After another engine's turn: its workers stop spinning, and the caches fill again unmeasured.
_PAUSE_SECONDS = 0.003
_WARM_UP = 2
# One turn is long enough that going round costs little, short enough for many rounds.
_TURN_SECONDS = 0.03
_MAX_TURN_RUNS = 64
_MIN_ROUNDS = 10


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


def interleaved(
    contestants: dict[str, Callable[[], object]],
    seconds: float,
    before_run: Callable[[], object] | None = None,
) -> dict[str, Times]:
    """Run every contestant in turn, round after round, for about `seconds` of measured time.

    Args:
        contestants: what to time, by name.
        before_run: called before each run, unmeasured, to flush the caches. A turn is one run then.
    """
    turns = {name: _turn_length(run, before_run) for name, run in contestants.items()}
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < _MIN_ROUNDS or time.perf_counter() < deadline:
        for name in order:
            run = contestants[name]
            time.sleep(_PAUSE_SECONDS)
            for _ in range(_WARM_UP):
                run()
            for _ in range(turns[name]):
                if before_run:
                    before_run()
                start = time.perf_counter()
                run()
                samples[name].append(time.perf_counter() - start)
        order.append(order.pop(0))  # nobody always follows the same one
        rounds += 1
    return {name: Times.of(taken) for name, taken in samples.items()}


def _turn_length(run: Callable[[], object], before_run: Callable[[], object] | None) -> int:
    for _ in range(_WARM_UP):
        run()
    start = time.perf_counter()
    run()
    once = max(time.perf_counter() - start, 1e-7)
    return 1 if before_run else int(np.clip(_TURN_SECONDS / once, 1, _MAX_TURN_RUNS))


def cache_flusher(last_level_bytes: int) -> Callable[[], object]:
    """A function that replaces everything in the caches, by writing twice their size."""
    buffer = np.zeros(max(2 * last_level_bytes, 32 << 20), np.uint8)

    def flush() -> None:
        np.add(buffer, 1, out=buffer)

    return flush
