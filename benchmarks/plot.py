"""A plot for each record: the time of lowgemm and of the best peer, against the least time that the machine allows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_SIZE, _DPI = (7.0, 5.5), 120
_LOWGEMM, _PEER = "#0b6e99", "#d9822b"


def plot(found: Mapping[str, Any], title: str, path: Path) -> None:
    """Write the plot of one record as PNG.

    Every row is two points above each other, over its roofline (`Setting.roofline_us`). The diagonal is the
    roofline itself.
    """
    rows = [row for row in found["rows"] if row["roofline_us"]]
    figure, axes = pyplot.subplots(figsize=_SIZE, dpi=_DPI)
    both = [row for row in rows if row["lowgemm_us"] and row["best_peer"]]
    for row in both:
        ends = (row["lowgemm_us"], row["peers_us"][row["best_peer"]])
        axes.plot([row["roofline_us"]] * 2, ends, color="#cccccc", linewidth=0.8, zorder=1)
    points = {
        "best right peer": (
            _PEER,
            [(r["roofline_us"], r["peers_us"][r["best_peer"]]) for r in both],
        ),
        "lowgemm": (
            _LOWGEMM,
            [(r["roofline_us"], r["lowgemm_us"]) for r in rows if r["lowgemm_us"]],
        ),
    }
    for label, (colour, pairs) in points.items():
        if pairs:
            axes.scatter(*zip(*pairs, strict=True), s=14, color=colour, label=label, zorder=2)
    values = [value for _, pairs in points.values() for pair in pairs for value in pair]
    if values:
        ends = (min(values) / 1.3, max(values) * 1.3)
        axes.plot(ends, ends, color="black", linewidth=1, label="roofline")
        axes.set_xlim(ends[0], 1.3 * max(row["roofline_us"] for row in rows))
        axes.set_ylim(ends)
        axes.legend(loc="lower right", frameon=False)  # where no time is
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xlabel("roofline: least time that the measured peaks allow (us)")
    axes.set_ylabel("median time (us)")
    host = found["host"]
    axes.set_title(
        f"{title}\n{host['cpu']}, {host['level']}, {host['date']}, {host['host']}", fontsize=10
    )
    axes.grid(True, which="major", linewidth=0.3)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
