"""Rows, their summary, and how both are written."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm.bench.timing import Times
from lowgemm.errors import RecordError

LOWGEMM = "lowgemm"
# What makes rows of two runs rows of one record.
_SAME_RUN = ("host", "cpu", "level", "commit")


@dataclass(frozen=True)
class Row:
    """One piece of work and how long each contestant took for it.

    Attributes:
        macs: multiply-accumulates of one run; each counts as two operations.
        peak_gops: what the cores used reach together, in the same rounds.
        times: by contestant whose result is right; "lowgemm" is missing where it could not do the work.
        wrong: by peer whose result is wrong; these are shown, and count for no ratio but `ratio_any`.
        errors: by contestant, distance to the reference result relative to that result's norm.
        failures: by contestant, why it was not timed, or why its time does not count.
        roofline_us: the least time that the peaks of this run allow.
        read_share: where the weights exceed the second cache, the rate at which they were gone through over that of a
            plain read of as many bytes.
    """

    name: str
    shape: str
    dtype: str
    threads: int
    state: str
    macs: int
    peak_gops: float
    times: Mapping[str, Times]
    wrong: Mapping[str, Times] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    compile_seconds: float | None = None
    roofline_us: float | None = None
    read_share: float | None = None

    @property
    def peers(self) -> dict[str, Times]:
        """The peers whose results are right."""
        return {name: times for name, times in self.times.items() if name != LOWGEMM}

    @property
    def best_peer(self) -> str | None:
        return min(self.peers, key=lambda name: self.peers[name].median, default=None)

    @property
    def ratio(self) -> float | None:
        """The best right peer's median over lowgemm's: above 1 where lowgemm is faster."""
        return self._ratio(self.peers, "median")

    @property
    def ratio_p10(self) -> float | None:
        """The same of the tenth percentiles, which other load on the machine moves less."""
        return self._ratio(self.peers, "p10")

    @property
    def ratio_any(self) -> float | None:
        """The ratio to the fastest peer of all, those with wrong results included."""
        return self._ratio({**self.peers, **self.wrong}, "median")

    def _ratio(self, peers: Mapping[str, Times], what: str) -> float | None:
        if LOWGEMM not in self.times or not peers:
            return None
        return min(getattr(t, what) for t in peers.values()) / getattr(self.times[LOWGEMM], what)

    def gops(self, times: Times | None) -> float | None:
        """Operations per nanosecond of a contestant."""
        return times and 2e-3 * self.macs / times.median

    def to_json(self) -> dict[str, Any]:
        own = self.times.get(LOWGEMM)
        gops = self.gops(own)
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
            "wrong_us": {name: times.median for name, times in self.wrong.items()},
            "runs": {name: times.runs for name, times in {**self.times, **self.wrong}.items()},
            "best_peer": self.best_peer,
            "ratio": self.ratio,
            "ratio_p10": self.ratio_p10,
            "ratio_any": self.ratio_any,
            "gops": gops,
            "peak_gops": self.peak_gops,
            "peak_share": gops and gops / self.peak_gops,
            "roofline_us": self.roofline_us,
            "roofline_share": own and self.roofline_us and self.roofline_us / own.median,
            "read_share": self.read_share,
            "errors": dict(self.errors),
            "failures": dict(self.failures),
            "compile_seconds": self.compile_seconds,
        }


def reason(error: Exception) -> str:
    """One line for `Row.failures`."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Geometric mean and minimum of the ratios, and how many rows lowgemm won; the same for rows of each name.

    Args:
        rows: as `Row.to_json` gives them.
    """
    names = dict.fromkeys(row["name"] for row in rows)
    wrong = Counter(peer for row in rows for peer in row["wrong_us"])
    failed = Counter(
        name for row in rows for name in row["failures"] if name not in row["wrong_us"]
    )
    summary = _totals(rows) | {"wrong": dict(wrong), "failed": dict(failed)}
    if 1 < len(names) < len(rows):
        parts = {name: [row for row in rows if row["name"] == name] for name in names}
        summary["by_name"] = {name: _totals(part) for name, part in parts.items()}
    return summary


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    against_all = [row["ratio_any"] for row in rows if row["ratio_any"] is not None]
    won = sum(ratio > 1 for ratio in ratios)
    totals = {
        "rows": len(rows),
        "rows_compared": len(ratios),
        "geomean_ratio": _geomean(ratios),
        "min_ratio": min(ratios, default=None),
        "rows_won": won,
        "share_won": won / len(rows) if rows else None,
        "geomean_ratio_any": _geomean(against_all),
        "min_ratio_any": min(against_all, default=None),
    }
    scaling = [row["scaling"] for row in rows if row.get("scaling")]
    if scaling:
        totals |= {"geomean_scaling": _geomean(scaling), "min_scaling": min(scaling)}
    return totals


def _geomean(values: Sequence[float]) -> float | None:
    return float(np.exp(np.mean(np.log(values)))) if values else None


def add_scaling(rows: Sequence[dict[str, Any]], fewer: Sequence[Mapping[str, Any]]) -> None:
    """Say in `rows` how much faster lowgemm is than on the fewer threads of `fewer`, rows of the same work."""
    before = {_work(row): row["lowgemm_us"] for row in fewer}
    for row in rows:
        slow, fast = before.get(_work(row)), row["lowgemm_us"]
        row["scaling"] = slow / fast if slow and fast else None


def _work(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["name"], row["shape"], row["dtype"], row["state"]


class RecordFile:
    """A record that grows: it is written anew after every row, whole, so that a run may end at any time.

    Args:
        path: where; None keeps nothing.
        host: what `host.describe` found.
        resume: keep the rows that `path` holds already, and go on behind them.
        fewer: rows of the same work on fewer threads, for `scaling`.

    Raises:
        RecordError: `path` holds rows of another machine or commit, or no record.
    """

    def __init__(
        self,
        path: Path | None,
        host: dict[str, Any],
        resume: bool = False,
        fewer: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._path, self._host, self._fewer = path, host, fewer
        self.rows: list[dict[str, Any]] = []
        if path and resume and path.exists():
            found = read(path)
            if any(found["host"].get(key) != host.get(key) for key in _SAME_RUN):
                raise RecordError(
                    f"{path} was measured on another machine or commit: remove it to begin anew"
                )
            self._host, self.rows = found["host"], found["rows"]

    def has(self, **fields: str) -> bool:
        """Whether the record holds a row with these fields."""
        return any(all(row[key] == value for key, value in fields.items()) for row in self.rows)

    def add(self, row: Row) -> None:
        """Write the record with `row` behind the others."""
        self.rows.append(row.to_json())
        if self._fewer:
            add_scaling(self.rows[-1:], self._fewer)
        self.write()

    def write(self) -> None:
        """Write it as it is."""
        if self._path:
            write(self._path, self._host, self.rows)


def write(path: Path, host: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON record of a run, `host`, `rows`, `summary`; a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"host": host, "rows": rows, "summary": summarize(rows)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """A record that `write` wrote.

    Raises:
        RecordError: there is none.
    """
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        raise RecordError(f"{path} is no record: it is not JSON") from None
    if not isinstance(found, dict) or not {"host", "rows", "summary"} <= found.keys():
        raise RecordError(f"{path} is no record: it has no host, rows and summary")
    return found


def render(row: Row) -> str:
    """A row as lines for the terminal: the work, then one line per contestant."""
    lines = [
        f"{row.name}  {row.shape}  {row.dtype}  threads {row.threads}"
        f"  {row.state}  {row.macs / 1e6:.1f} MMACs"
    ]
    timed = {**row.times, **row.wrong}
    for name in sorted(timed, key=lambda name: timed[name].median):
        times = timed[name]
        gops = row.gops(times) or 0.0
        error = f"  error {row.errors[name]:.1e}" if name in row.errors else ""
        lines.append(
            f"  {name:20} {_time(times.median):>10}  p10 {_time(times.p10):>10}"
            f"  p90 {_time(times.p90):>10}  {gops:7.1f} GOPS"
            f"  {gops / row.peak_gops:6.1%} of peak{error}{'  WRONG' if name in row.wrong else ''}"
        )
    lines += [f"  {name:20} {reason}" for name, reason in row.failures.items()]
    if row.roofline_us and LOWGEMM in row.times:
        share = row.roofline_us / row.times[LOWGEMM].median
        read = f", plain read of the weights {row.read_share:.0%}" if row.read_share else ""
        lines.append(f"  roofline {_time(row.roofline_us)}: lowgemm reaches {share:.0%}{read}")
    if row.ratio is not None and row.ratio_p10 is not None:
        lines.append(f"  ratio to {row.best_peer}: {row.ratio:.2f} (of p10: {row.ratio_p10:.2f})")
    if row.wrong and row.ratio_any is not None:
        lines.append(f"  ratio to the fastest, right or wrong: {row.ratio_any:.2f}")
    return "\n".join(lines)


def render_summary(summary: Mapping[str, Any]) -> str:
    """The summary in a line, and one more for each name of rows and for what went wrong."""
    lines = [_line(summary)]
    lines += [f"  {name}: {_line(part)}" for name, part in summary.get("by_name", {}).items()]
    for word in ("wrong", "failed"):
        if counts := summary[word]:
            lines.append(f"{word}: " + ", ".join(f"{k} in {v} rows" for k, v in counts.items()))
    return "\n".join(lines)


def _line(totals: Mapping[str, Any]) -> str:
    if not totals["rows_compared"]:
        return f"{totals['rows']} rows, none compared"
    text = (
        f"{totals['rows']} rows, ratio to the best peer: geometric mean "
        f"{totals['geomean_ratio']:.2f}, minimum {totals['min_ratio']:.2f}; "
        f"{totals['rows_won']} won ({totals['share_won']:.0%})"
    )
    if "min_scaling" in totals:
        text += f"; scaling {totals['geomean_scaling']:.2f}, at least {totals['min_scaling']:.2f}"
    return text


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.1f} us"
    return f"{microseconds / 1000:.3f} ms"
