"""Records as pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("matplotlib", reason="plots need the extra docs")

from benchmarks.__main__ import main

HOST = {"host": "box", "date": "2026-01-02", "cpu": "Some CPU", "level": "avx2"}
PNG = b"\x89PNG"


def row(lowgemm: float | None, roofline: float | None, **peers: float) -> dict[str, Any]:
    return {
        "lowgemm_us": lowgemm, "roofline_us": roofline, "peers_us": peers,
        "best_peer": min(peers, key=lambda name: peers[name], default=None),
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(2.0, 1.0, a=3.0, b=4.0), row(None, 1.0, a=3.0), row(2.0, 1.0), row(2.0, None, a=3.0)],
    ],
    ids=["empty", "incomplete"],
)
def test_each_record_becomes_a_picture(rows: list[Any], tmp_path: Path) -> None:
    for name in ("conv-1t", "gemm-2t"):
        record = {"host": HOST, "rows": rows, "summary": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    files = [str(path) for path in tmp_path.glob("*.json")]
    result = CliRunner().invoke(main, ["plot", *files, "-o", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    pictures = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in pictures] == ["conv-1t.png", "gemm-2t.png"]
    assert all(path.read_bytes().startswith(PNG) for path in pictures)


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    result = CliRunner().invoke(main, ["plot", str(tmp_path / "bad.json"), "-o", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and "bad.json is no record" in result.output
