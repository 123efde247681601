"""One row: contestants are made, their results checked, then those that can be timed are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lowgemm.bench.host import Setting
from lowgemm.bench.record import LOWGEMM, Row, reason
from lowgemm.bench.timing import GAUGE, interleaved


class Contestant(Protocol):
    """Something that does the work of a row."""

    def output(self) -> np.ndarray:
        """The result, in the form that all contestants of the row share."""
        ...

    def __call__(self, runs: int) -> list[float]:
        """Do the work so many times; the seconds of each."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


# A contestant's name and its result -> the distance to the right result, relative to that one's norm, and whether it is
# right; None where there is nothing to compare with.
Check = Callable[[str, np.ndarray], "tuple[float, bool] | None"]


@dataclass(frozen=True)
class Work:
    """What a row is about.

    Attributes:
        macs: multiply-accumulates of one run.
        moved: bytes that one run reads and writes at least: inputs, weights and outputs, each once.
        read_rate: a plain read of the weights in GB/s, where they exceed the second cache.
        weight_bytes: of the weights as lowgemm's kernel reads them.
        peak: what `macs` are measured by, a name in `Setting.peaks`.
    """

    name: str
    shape: str
    dtype: str
    macs: int
    moved: int
    weight_bytes: int = 0
    read_rate: float | None = None
    peak: str = "dot_gops"


def compare(
    work: Work, makers: Mapping[str, Callable[[], Contestant]], check: Check, setting: Setting
) -> Row:
    """Measure one row.

    A peer whose result is wrong is timed, too, but does not count. lowgemm with a wrong result is not timed.

    Args:
        makers: by name, what makes a contestant; whatever one of them raises becomes its failure. lowgemm's is one.
    """
    failures: dict[str, str] = {}
    errors: dict[str, float] = {}
    contestants: dict[str, Contestant] = {}
    wrong: set[str] = set()
    compile_seconds = None
    with ExitStack() as stack:
        for name, make in makers.items():
            try:
                start = time.perf_counter()
                contestant = make()
                stack.callback(contestant.close)
                if name == LOWGEMM:
                    compile_seconds = time.perf_counter() - start
                verdict = check(name, contestant.output())
            except Exception as error:  # anything: the others' numbers are still worth having
                failures[name] = reason(error)
                continue
            if verdict:
                errors[name], right = verdict
                if not right:
                    failures[name] = f"wrong result: {errors[name]:.1%} off the reference"
                    wrong.add(name)
            if name not in wrong or name != LOWGEMM:
                contestants[name] = contestant
        gauge = setting.gauges.get(work.peak)
        times = interleaved(contestants, setting.seconds, setting.flush, gauge)
    peak_gops = setting.peak_gops(work.peak)
    if gauge and (gauged := times.pop(GAUGE, None)):
        peak_gops = 2e-3 * gauge.macs / gauged.median
    own = times.get(LOWGEMM)
    read_share = None
    if own and work.read_rate:
        read_share = 1e-3 * work.weight_bytes / own.median / work.read_rate
    return Row(
        name=work.name,
        shape=work.shape,
        dtype=work.dtype,
        threads=setting.threads,
        state=setting.state,
        macs=work.macs,
        peak_gops=peak_gops,
        times={name: taken for name, taken in times.items() if name not in wrong},
        wrong={name: taken for name, taken in times.items() if name in wrong},
        errors=errors,
        failures=failures,
        compile_seconds=compile_seconds,
        roofline_us=setting.roofline_us(work.peak, work.macs, work.moved),
        read_share=read_share,
    )


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Between two arrays, relative to the norm of the expected one."""
    expected = expected.astype(np.float64)
    norm = np.linalg.norm(expected)
    return float(np.linalg.norm(found.astype(np.float64) - expected) / (norm or 1.0))
