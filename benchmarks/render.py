"""`python -m benchmarks.render`: write README's tables anew from the records."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import record

README = Path(__file__).parent.parent / "README.md"
Record = dict[str, Any]

# Columns of the table of models, and the contestants of which each shows the fastest.
_MODEL_COLUMNS = {
    "lowgemm": (record.LOWGEMM,),
    "ONNX Runtime int8": ("onnxruntime qdq", "onnxruntime qop"),
    "OpenVINO int8": ("openvino qdq",),
    "ONNX Runtime float": ("onnxruntime float",),
    "OpenVINO float": ("openvino float",),
}
_LAYER_FAMILIES = {
    "gemm": "matrix products",
    "conv": "convolutions",
    "depthwise": "depthwise convolutions",
}


def render(text: str, directory: Path = record.DIRECTORY) -> str:
    """`text` with what stands between its markers replaced by tables of the records in `directory`.

    A table whose records are missing becomes empty.
    """
    for section, table in _SECTIONS.items():
        opening, closing = f"<!-- benchmarks:{section} -->", f"<!-- /benchmarks:{section} -->"
        if opening in text:
            body = "\n".join([opening, *table(directory), closing])
            pattern = f"{re.escape(opening)}.*?{re.escape(closing)}"
            text = re.sub(pattern, lambda _, body=body: body, text, flags=re.DOTALL)
    return text


def _models(directory: Path) -> list[str]:
    records = _load("models", directory)
    if not records:
        return []
    rows = [row for found in records for row in found["rows"]]
    rows.sort(key=lambda row: (row["macs"], row["name"], row["threads"]))
    head = ["model", "MMACs", "threads", *_MODEL_COLUMNS, "best peer / lowgemm"]
    lines = _table_head(head, left=1)
    for row in rows:
        times = {record.LOWGEMM: row["lowgemm_us"], **row["peers_us"]}
        cells = []
        for contestants in _MODEL_COLUMNS.values():
            known = [times[name] for name in contestants if times.get(name) is not None]
            cells.append(f"{min(known) / 1000:.2f}" if known else "-")
        work = [row["name"], f"{row['macs'] / 1e6:.0f}", str(row["threads"])]
        cells = [*work, *cells, _ratio(row["ratio"])]
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "Median milliseconds of one run at batch 1. ONNX Runtime's int8 is the faster of its two forms;",
        "OpenVINO computes float models as it does by itself, in bf16 where the CPU can.",
        *_origin(records),
    ]


def _layers(directory: Path) -> list[str]:
    head = ["layers", "threads", "shapes", "lowgemm faster in", "geometric mean", "least"]
    lines, used = _table_head(head, left=1), []
    for family, title in _LAYER_FAMILIES.items():
        for found in _load(family, directory):
            used.append(found)
            summary = found["summary"]
            cells = [title, str(found["rows"][0]["threads"]), str(summary["rows"])]
            ratios = [summary["geomean_ratio"], summary["min_ratio"]]
            cells += [str(summary["rows_won"]), *map(_ratio, ratios)]
            lines.append(f"| {' | '.join(cells)} |")
    if not used:
        return []
    return [
        *lines,
        "",
        "Time of the faster one of FBGEMM and oneDNN (inside PyTorch, called from C++) over lowgemm's,",
        "on shapes from FBGEMM's own benchmarks.",
        *_origin(used),
    ]


_SECTIONS: dict[str, Callable[[Path], list[str]]] = {"models": _models, "layers": _layers}


def _load(family: str, directory: Path) -> list[Record]:
    """The records of a family, fewest threads first; those with flushed caches are not for README."""
    found = [json.loads(path.read_text()) for path in directory.glob(f"{family}-*t.json")]
    return sorted(found, key=lambda record: record["rows"][0]["threads"])


def _table_head(names: Sequence[str], left: int) -> list[str]:
    """The first two lines of a table, numbers to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(names))]
    return [f"| {' | '.join(names)} |", f"| {' | '.join(rule)} |"]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _origin(records: Sequence[Record]) -> list[str]:
    """Where and when the records were made, each place and day once."""
    lines = []
    for found in records:
        host = found["host"]
        line = (
            f"Measured on {host['date']} on {host['host']}: {host['cpu']}, {host['cpus']} CPUs, {host['level']}, "
            f"commit {host['commit']}."
        )
        if line not in lines:
            lines.append(line)
    return lines


@click.command()
def main() -> None:
    """Write README's tables anew from benchmarks/records."""
    text = README.read_text()
    changed = render(text)
    if changed != text:
        README.write_text(changed)
    click.echo(f"{README.name} {'is changed' if changed != text else 'is up to date'}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.render")
