"""Imports inside lowgemm go one way, as the table here says."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lowgemm"
ROOT = "lowgemm"

# part of the package -> the other parts it may import. A part is a module or a folder directly
# below lowgemm/; "lowgemm" is the public surface in __init__.py.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "graph": {"errors"},
    "statements": set(),
    "quant": {"errors"},
    "targets": {"errors"},
    "packing": {"errors", "quant", "targets"},
    "packing_panels": {"errors", "quant", "targets"},
    "tiling": {"errors", "quant", "targets", "packing"},
    "intrin": {"errors", "quant", "targets", "packing", "topi"},
    "topi": {"errors", "graph", "quant", "packing", "packing_panels", "statements"},
    "schedules": {
        "errors",
        "quant",
        "targets",
        "packing",
        "packing_panels",
        "tiling",
        "intrin",
        "topi",
        "statements",
    },
    "reference": {"errors", "graph", "quant"},
    # The reference also serves the compiler: constants are folded with it, and the tables of
    # elementwise chains are what it computes for all 256 inputs.
    "frontend": {"errors", "graph", "quant", "reference"},
    "passes": {"errors", "graph", "quant", "packing", "topi", "reference"},
    "artifact": {"errors", "statements"},
    "runtime": {"errors"},
}
# From integer operators to kernels: everything above meets here.
ALLOWED["lower"] = {*ALLOWED} - {"artifact", "runtime"}
ALLOWED["codegen"] = {"errors", "graph", "targets", "lower", "artifact"}
# The tuner builds and runs candidates by itself, and models are its lists of tasks.
ALLOWED["tune"] = {*ALLOWED}
_BELOW_COMPILER = set(ALLOWED)
ALLOWED["ops"] = {*_BELOW_COMPILER} - {"frontend", "passes", "lower", "runtime"}
ALLOWED |= {
    "compiler": _BELOW_COMPILER,
    "lowgemm": {"errors", "frontend", "runtime", "compiler", "ops", "tune"},
    "demo": {*_BELOW_COMPILER, "compiler", "lowgemm"},
    "bench": {"errors", "graph", "targets", "frontend", "compiler", "lowgemm"},
    "cli": {*_BELOW_COMPILER, "compiler", "lowgemm", "demo", "bench"},
}

# part -> the only packages it may import beside the standard library
OUTSIDE: dict[str, set[str]] = {
    "errors": set(),
    "runtime": {"numpy"},
    "graph": {"numpy"},
    "quant": {"numpy"},
    "packing": {"numpy"},
    "packing_panels": {"numpy"},
    "tiling": set(),
    "statements": {"tvm"},
    "reference": {"numpy"},
    "frontend": {"numpy", "onnx", "onnxruntime", "google"},
    "bench": {"numpy", "onnxruntime", "openvino"},
    "cli": {"click", "numpy"},
}


def part_of(path: Path) -> str:
    """The part that a file below lowgemm/ belongs to."""
    inside = path.relative_to(PACKAGE)
    if len(inside.parts) > 1:
        return inside.parts[0]
    return ROOT if inside.stem == "__init__" else inside.stem


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of all that `source`, a module of `package`, imports anywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def violations(source: str, part: str, package: str = ROOT) -> list[str]:
    """What `source`, a module of `part`, imports against the tables, one line each."""
    found = []
    for line, name in imported(source, package):
        top, _, rest = name.partition(".")
        if top == ROOT:
            target = rest.partition(".")[0]
            target = target if target in ALLOWED else ROOT
            if target != part and target not in ALLOWED[part]:
                found.append(f"line {line}: {part} may not import {target} ({name})")
        elif top not in sys.stdlib_module_names and top not in OUTSIDE.get(part, {top}):
            found.append(f"line {line}: {part} may not import {top}")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"give {part} its place in the table of {Path(__file__).name}"
    package = ".".join([ROOT, *path.relative_to(PACKAGE).parent.parts])
    assert violations(path.read_text(), part, package) == []


def test_table_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {part for part, needs in ALLOWED.items() if part not in done and needs <= done}
        assert ready, f"cycle among {sorted(set(ALLOWED) - done)}"
        done |= ready


@pytest.mark.parametrize(
    ("source", "part", "package"),
    [
        ("from lowgemm.compiler import compile", "topi", "lowgemm.topi"),
        ("from lowgemm import targets", "runtime", "lowgemm.runtime"),
        ("import lowgemm.frontend.onnx", "schedules", "lowgemm.schedules"),
        ("from ..targets import host", "artifact", "lowgemm.artifact"),
        ("from .. import topi", "frontend", "lowgemm.frontend"),
        ("import lowgemm", "passes", "lowgemm.passes"),
        ("def f():\n    import tvm", "runtime", "lowgemm.runtime"),
        ("if TYPE_CHECKING:\n    from onnx import ModelProto", "quant", "lowgemm.quant"),
    ],
)
def test_violation_is_found(source: str, part: str, package: str) -> None:
    assert len(violations(source, part, package)) == 1


@pytest.mark.parametrize(
    ("source", "part", "package"),
    [
        ("from lowgemm import errors", "runtime", "lowgemm.runtime"),
        ("from ..errors import LowgemmError", "artifact", "lowgemm.artifact"),
        ("from .plan import Plan", "artifact", "lowgemm.artifact"),
        ("import ctypes\nimport numpy as np", "runtime", "lowgemm.runtime"),
        ("import tvm", "topi", "lowgemm.topi"),
    ],
)
def test_allowed_import_is_not_a_violation(source: str, part: str, package: str) -> None:
    assert violations(source, part, package) == []
