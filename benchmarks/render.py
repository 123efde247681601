"""`python -m benchmarks.render`: write README's tables anew from the records."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import RECORDS, ROOT
from lowgemm.bench import record

README = ROOT / "README.md"
Record = dict[str, Any]

# Columns of the table of models, and the contestants of which each shows the fastest.
_MODEL_COLUMNS = {
    "lowgemm": (record.LOWGEMM,),
    "ONNX Runtime int8": ("onnxruntime qdq", "onnxruntime qop"),
    "OpenVINO int8": ("openvino qdq",),
    "ONNX Runtime float": ("onnxruntime float",),
    "OpenVINO float": ("openvino float",),
}
_FAMILIES = {
    "gemm": "matrix products",
    "conv": "convolutions",
    "depthwise": "depthwise convolutions",
    "weights": "float32 by weights of 16, 8 or 4 bits",
    "embedding": "embedding bags of 8 or 4 bits",
}

_PEERS = {
    "fbgemm": "FBGEMM in PyTorch",
    "fbgemm-fp16": "its float16 products",
    "onednn-torch": "oneDNN in PyTorch",
    "onednn": "oneDNN's own library",
    "torch-float": "PyTorch in float32",
}


def render(text: str, directory: Path = RECORDS) -> str:
    """`text` with what stands between its markers, `benchmarks:LEVEL/TABLE`, replaced by tables of the records.

    Those of hosts of a level are in its folder of `directory`. A table whose records are missing becomes empty.
    """

    def replaced(found: re.Match[str]) -> str:
        lines = _TABLES[found["table"]](directory / found["level"])
        return "\n".join([found["opening"], *lines, found["closing"]])

    return _MARKED.sub(replaced, text)


def _models(directory: Path) -> list[str]:
    records = _load("models", directory)
    if not records:
        return []
    rows = [row for found in records for row in found["rows"]]
    rows.sort(key=lambda row: (row["macs"], row["name"], row["threads"]))
    head = ["model", "MMACs", "threads", *_MODEL_COLUMNS, "best peer / lowgemm", "any / lowgemm"]
    lines = _table_head(head, left=1)
    for row in rows:
        work = [row["name"], f"{row['macs'] / 1e6:.0f}", str(row["threads"])]
        cells = [_milliseconds(row, contestants) for contestants in _MODEL_COLUMNS.values()]
        lines.append(_line([*work, *cells, _ratio(row["ratio"]), _ratio(row["ratio_any"])]))
    return [
        *lines,
        "",
        "Median milliseconds of one run at batch 1. ONNX Runtime's int8 is the faster of its two forms;",
        "OpenVINO computes float models as it does by itself, in bf16 where the CPU can. A star marks a wrong",
        "result: more than 5% off exact integers, and farther off than two exact results are from each other,",
        "whose float operators sum in another order. It counts in the last column only.",
        *_origin(records),
    ]


def _milliseconds(row: Mapping[str, Any], contestants: Sequence[str]) -> str:
    """The time of the fastest of the contestants that are right, or else of those that are not, with a star."""
    right = {record.LOWGEMM: row["lowgemm_us"], **row["peers_us"]}
    for times, star in ((right, ""), (row["wrong_us"], "*")):
        known = [times[name] for name in contestants if times.get(name) is not None]
        if known:
            return f"{min(known) / 1000:.2f}{star}"
    return "-"


def _layers(directory: Path) -> list[str]:
    head = ["work", "threads", "shapes", "lowgemm faster in", "geometric mean", "least", "scaling"]
    lines, used = _table_head(head, left=1), []
    for family, title in _FAMILIES.items():
        for found in _load(family, directory):
            used.append(found)
            summary = found["summary"]
            cells = [title, str(found["rows"][0]["threads"]), str(summary["rows"])]
            ratios = [summary["geomean_ratio"], summary["min_ratio"]]
            ratios.append(summary.get("geomean_scaling"))
            lines.append(_line([*cells, str(summary["rows_won"]), *map(_ratio, ratios)]))
    if not used:
        return []
    present = {name for found in used for row in found["rows"] for name in row["peers_us"]}
    peers = ", ".join(text for name, text in _PEERS.items() if name in present)
    return [
        *lines,
        "",
        "Time of the fastest peer over lowgemm's, on shapes of FBGEMM's own benchmarks and of real models, called from",
        "C and C++. Where a record has two threads, scaling is how much faster than on one, the geometric mean.",
        f"Peers: {peers}.",
        *_origin(used),
    ]


_TABLES: dict[str, Callable[[Path], list[str]]] = {"models": _models, "layers": _layers}
_MARKED = re.compile(
    rf"(?P<opening><!-- benchmarks:(?P<level>\w+)/(?P<table>{'|'.join(_TABLES)}) -->).*?"
    r"(?P<closing><!-- /benchmarks:(?P=level)/(?P=table) -->)",
    re.DOTALL,
)


def _load(family: str, directory: Path) -> list[Record]:
    """The records of a family, fewest threads first; those with flushed caches are not for README."""
    found = [record.read(path) for path in directory.glob(f"{family}-*t.json")]
    return sorted(found, key=lambda found: found["rows"][0]["threads"])


def _table_head(names: Sequence[str], left: int) -> list[str]:
    """The first two lines of a table, numbers to the right."""
    return [_line(names), _line(["---" if i < left else "---:" for i in range(len(names))])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _origin(records: Sequence[Record]) -> list[str]:
    """Where and when the records were made, each place and day once."""
    lines = []
    for found in records:
        host = found["host"]
        line = (
            f"Measured on {host['date']} on {host['host']}: {host['cpu']}, {host['cpus']} CPUs, {host['level']} "
            f"({', '.join(host['features'])}), commit {host['commit']}."
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
