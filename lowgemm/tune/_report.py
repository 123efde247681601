"""The tuning report: an HTML page of a database."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lowgemm.errors import TuningError
from lowgemm.schedules import config_to_json
from lowgemm.tune._database import Record, best_records
from lowgemm.tune._model import CostModel

_WIDTH, _HEIGHT = 260, 60
_KNOBS_SHOWN = 4


@dataclass(frozen=True)
class _Row:
    """One task on one CPU, ready for the page."""

    task: str
    cpu: str
    trials: int
    failures: list[str]
    first: str
    best: str
    gain: float
    knobs: dict[str, Any]
    curve: str
    importances: list[tuple[str, float]]


def render(records: Sequence[Record], title: str) -> str:
    """The page: for every task its best time against trials, the first configuration against the best, what mattered.

    Raises:
        TuningError: jinja2 is missing, or there is nothing to report.
    """
    try:
        import jinja2
    except ImportError:
        raise TuningError("the report needs jinja2: pip install 'lowgemm[tune]'") from None
    best = {(r.task.key, r.cpu): r for r in best_records(records)}
    if not best:
        raise TuningError(f"{title} holds no trial that worked")
    groups: dict[tuple, list[Record]] = {key: [] for key in best}
    for record in records:
        if (key := (record.task.key, record.cpu)) in groups:
            groups[key].append(record)
    rows = [_row(groups[key], best[key]) for key in groups]
    rows.sort(key=lambda row: -row.gain)
    source = (resources.files("lowgemm.tune") / "report.html.jinja").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    size = {"width": _WIDTH, "height": _HEIGHT}
    return environment.from_string(source).render(title=title, rows=rows, **size)


def _row(trials: list[Record], best: Record) -> _Row:
    first = next(r for r in trials if r.won)
    seconds = (best.seconds or 0.0) / (best.relative or 1.0)
    return _Row(
        task=f"{best.task}, {best.task.target.level}, threads {best.task.threads}",
        cpu=best.cpu,
        trials=len(trials),
        failures=[f"{config_to_json(r.config)}: {r.failure}" for r in trials if r.failure],
        first=_time(seconds * (first.relative or 1.0)),
        best=_time(best.seconds or 0.0),
        gain=(first.relative or 1.0) / (best.relative or 1.0) - 1,
        knobs=config_to_json(best.config),
        curve=_curve(trials),
        importances=_importances(trials),
    )


def _curve(trials: list[Record]) -> str:
    """Points of an SVG polyline: the best time so far after each trial, fastest at the bottom."""
    so_far, values = math.inf, []
    for record in trials:
        if record.won and record.relative is not None:
            so_far = min(so_far, record.relative)
        values.append(so_far)
    known = [v for v in values if v < math.inf]
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    step = _WIDTH / max(1, len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{_HEIGHT - 4 - (min(value, high) - low) / span * (_HEIGHT - 8):.1f}"
        for index, value in enumerate(values)
    )


def _importances(trials: list[Record]) -> list[tuple[str, float]]:
    """The knobs that the cost model tells configurations of this task apart by."""
    model = CostModel.fit(trials, seed=0, names=[*config_to_json(trials[0].config)])
    return list(model.importances().items())[:_KNOBS_SHOWN] if model else []


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
