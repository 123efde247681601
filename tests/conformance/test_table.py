"""docs/conformance.md names tests that exist, for each of FBGEMM's."""

import re
from pathlib import Path

from convolutions import FBGEMM_TABLES

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/conformance.md").read_text()


def names(text: str) -> list[tuple[str, str]]:
    """(file, test) of each row of the tables, or (file, "") of a file alone."""
    found = []
    for line in text.splitlines():
        file = ""
        for word in re.findall(r"`([^`]+)`", line):
            if word.endswith(".py"):
                file = word
                found.append((file, ""))
            elif word.startswith("test_"):
                found.append((file, word))
    return found


def exists(file: str, test: str) -> bool:
    folders = (ROOT, ROOT / "tests/conformance", ROOT / "tests/ops")
    sources = [(folder / file).read_text() for folder in folders if (folder / file).is_file()]
    return any(not test or f"def {test}(" in source for source in sources)


def test_all_are_there() -> None:
    rows = names(TEXT)
    assert len(rows) > 40
    assert [row for row in rows if not exists(*row)] == []
    assert not exists("test_gemm.py", "test_nothing")


def test_all_of_fbgemms_are_named() -> None:
    assert re.findall(r"^\| (T\d+) ", TEXT, re.MULTILINE) == [f"T{n}" for n in range(1, 17)]
    source = (ROOT / "tests/conformance/test_conv.py").read_text()
    convolutions = [
        name for name in FBGEMM_TABLES if re.match("uniconv_.d|gconv|depth|direct", name)
    ]
    assert [name for name in convolutions if f'"{name}"' not in source or name not in TEXT] == []
