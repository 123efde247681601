"""Rows, their summary, and how both are written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Times

LOWGEMM = "lowgemm"
# Records that are kept; README's tables are rendered from them.
DIRECTORY = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Row:
    """One piece of work and how long each contestant took for it.

    Attributes:
        macs: multiply-accumulates of one run; each counts as two operations.
        peak_gops: what the cores used can reach together.
        times: by contestant; "lowgemm" is missing where it could not do the work.
        errors: by contestant, distance to the reference result relative to that result's norm.
        failures: by contestant, why it was not timed.
    """

    name: str
    shape: str
    dtype: str
    threads: int
    state: str
    macs: int
    peak_gops: float
    times: dict[str, Times]
    errors: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    compile_seconds: float | None = None

    @property
    def peers(self) -> dict[str, Times]:
        return {name: times for name, times in self.times.items() if name != LOWGEMM}

    @property
    def best_peer(self) -> str | None:
        return min(self.peers, key=lambda name: self.peers[name].median, default=None)

    @property
    def ratio(self) -> float | None:
        """Best peer's median over lowgemm's: above 1 where lowgemm is faster."""
        if LOWGEMM not in self.times or self.best_peer is None:
            return None
        return self.times[self.best_peer].median / self.times[LOWGEMM].median

    @property
    def ratio_p10(self) -> float | None:
        """The same of the tenth percentiles, which other load on the machine moves less."""
        if LOWGEMM not in self.times or not self.peers:
            return None
        return min(times.p10 for times in self.peers.values()) / self.times[LOWGEMM].p10

    def gops(self, contestant: str = LOWGEMM) -> float | None:
        if contestant not in self.times:
            return None
        return 2e-3 * self.macs / self.times[contestant].median

    def to_json(self) -> dict[str, Any]:
        own, gops = self.times.get(LOWGEMM), self.gops()
        return {
            "name": self.name,
            "shape": self.shape,
            "dtype": self.dtype,
            "threads": self.threads,
            "state": self.state,
            "macs": self.macs,
            "lowgemm_us": own and own.median,
            "lowgemm_p10_us": own and own.p10,
            "lowgemm_p90_us": own and own.p90,
            "peers_us": {name: times.median for name, times in self.peers.items()},
            "peers_p10_us": {name: times.p10 for name, times in self.peers.items()},
            "peers_p90_us": {name: times.p90 for name, times in self.peers.items()},
            "runs": {name: times.runs for name, times in self.times.items()},
            "best_peer": self.best_peer,
            "ratio": self.ratio,
            "ratio_p10": self.ratio_p10,
            "gops": gops,
            "peak_share": gops and gops / self.peak_gops,
            "errors": self.errors,
            "failures": self.failures,
            "compile_seconds": self.compile_seconds,
        }


def reason(error: Exception) -> str:
    """One line for `Row.failures`."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Geometric mean and minimum of the ratios, and how many rows lowgemm won."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return {
        "rows": len(rows),
        "rows_compared": len(ratios),
        "geomean_ratio": float(np.exp(np.mean(np.log(ratios)))) if ratios else None,
        "min_ratio": min(ratios, default=None),
        "rows_won": sum(ratio > 1 for ratio in ratios),
        "share_won": sum(ratio > 1 for ratio in ratios) / len(rows) if rows else None,
    }


def path(family: str, threads: int, state: str = "warm", directory: Path = DIRECTORY) -> Path:
    """Where the record of a run goes."""
    ending = "" if state == "warm" else f"-{state}"
    return directory / f"{family}-{threads}t{ending}.json"


def write(path: Path, host: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write one JSON record of a run: `host`, `rows`, `summary`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"host": host, "rows": [r.to_json() for r in rows], "summary": summarize(rows)}
    path.write_text(json.dumps(record, indent=1) + "\n")


def render(row: Row) -> str:
    """A row as lines for the terminal: the work, then one line per contestant."""
    lines = [
        f"{row.name}  {row.shape}  {row.dtype}  threads {row.threads}"
        f"  {row.state}  {row.macs / 1e6:.1f} MMACs"
    ]
    for name in sorted(row.times, key=lambda name: row.times[name].median):
        times, gops = row.times[name], row.gops(name) or 0.0
        error = f"  error {row.errors[name]:.1e}" if name in row.errors else ""
        lines.append(
            f"  {name:20} {_time(times.median):>10}  p10 {_time(times.p10):>10}"
            f"  p90 {_time(times.p90):>10}  {gops:7.1f} GOPS"
            f"  {gops / row.peak_gops:6.1%} of peak{error}"
        )
    lines += [f"  {name:20} {reason}" for name, reason in row.failures.items()]
    if row.ratio is not None and row.ratio_p10 is not None:
        lines.append(f"  ratio to {row.best_peer}: {row.ratio:.2f} (of p10: {row.ratio_p10:.2f})")
    return "\n".join(lines)


def render_summary(summary: dict[str, Any]) -> str:
    """The summary in one line."""
    if not summary["rows_compared"]:
        return f"{summary['rows']} rows, none compared"
    return (
        f"{summary['rows']} rows, ratio to the best peer: geometric mean "
        f"{summary['geomean_ratio']:.2f}, minimum {summary['min_ratio']:.2f}; "
        f"{summary['rows_won']} won ({summary['share_won']:.0%})"
    )


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.1f} us"
    return f"{microseconds / 1000:.3f} ms"
