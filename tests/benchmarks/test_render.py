"""README's tables come from the records and from nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import render

HOST = {
    "host": "box", "date": "2026-01-02", "cpu": "Some CPU", "cpus": 2, "level": "avx2",
    "commit": "0123456789ab", "features": ["avx2", "fma"],
}  # fmt: skip
PAGE = """Before.

<!-- benchmarks:avx2/models -->
stale
<!-- /benchmarks:avx2/models -->

Between.

<!-- benchmarks:avx2/layers -->
<!-- /benchmarks:avx2/layers -->
After.
"""


def write(folder: Path, name: str, rows: list[dict[str, Any]], summary: Any = None) -> None:
    (folder / name).write_text(json.dumps({"host": HOST, "rows": rows, "summary": summary}))


def model(
    threads: int, peers: dict[str, float], macs: float = 2e6, wrong: dict[str, float] | None = None
) -> dict[str, Any]:
    return {
        "name": "net", "threads": threads, "macs": macs, "lowgemm_us": 1000.0, "peers_us": peers,
        "wrong_us": wrong or {}, "ratio": 1.5, "ratio_any": 0.75,
    }  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "avx2"
    folder.mkdir()
    peers = {"onnxruntime qdq": 2500.0, "onnxruntime qop": 1500.0, "openvino float": 3000.0}
    write(folder, "models-2t.json", [model(2, peers)])
    wrong = {"onnxruntime qdq": 900.0, "openvino qdq": 750.0}
    rows = [model(1, {"onnxruntime qop": 1500.0}, 9e6, wrong), model(1, peers)]
    write(folder, "models-1t.json", rows)
    write(folder, "models-1t-flushed.json", [model(7, peers)])
    summary = {"rows": 3, "rows_won": 2, "geomean_ratio": 1.26, "min_ratio": 0.5}
    write(folder, "conv-1t.json", [model(1, {"fbgemm": 1.0})], summary)
    write(folder, "weights-2t.json", [model(2, {})], summary | {"geomean_scaling": 1.9})
    return tmp_path


def cells(text: str) -> list[list[str]]:
    """The tables' lines without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = [i for i, line in enumerate(lines) if line.startswith("| ---")]
    body = [line for i, line in enumerate(lines) if i not in rules and i + 1 not in rules]
    return [line.strip("| ").split(" | ") for line in body]


def test_tables_show_the_records(records: Path) -> None:
    text = render.render(PAGE, records)
    assert cells(text) == [
        ["net", "2", "1", "1.00", "1.50", "-", "-", "3.00", "1.50", "0.75"],
        ["net", "2", "2", "1.00", "1.50", "-", "-", "3.00", "1.50", "0.75"],
        ["net", "9", "1", "1.00", "1.50", "0.75*", "-", "-", "1.50", "0.75"],
        ["convolutions", "1", "3", "2", "1.26", "0.50", "-"],
        ["float32 by weights of 16, 8 or 4 bits", "2", "3", "2", "1.26", "0.50", "1.90"],
    ]
    assert text.count("Measured on 2026-01-02 on box: Some CPU, 2 CPUs, avx2 (avx2, fma)") == 2
    assert "Peers: FBGEMM in PyTorch." in text


def test_only_what_is_between_the_markers_changes(records: Path) -> None:
    text = render.render(PAGE, records)
    for part in ("Before.\n\n<!--", "-->\n\nBetween.\n\n<!--", "-->\nAfter.\n"):
        assert part in text
    assert "stale" not in text
    assert render.render(text, records) == text


def test_without_records_tables_are_empty(tmp_path: Path) -> None:
    assert render.render(PAGE, tmp_path) == PAGE.replace("stale\n", "")


def test_a_page_without_markers_stays_as_it_is(records: Path) -> None:
    assert render.render("# lowgemm\n", records) == "# lowgemm\n"


def test_readme_shows_the_records_that_are_kept() -> None:
    text = render.README.read_text()
    assert render.render(text) == text, "run python -m benchmarks.render"
