"""Which instruction-set levels this host runs, and which of them the tests have really exercised.

The host's features come from /proc/cpuinfo and the levels' needs are written down here once more,
on purpose: were they taken from `lowgemm.targets`, a mistake there would hide itself by skipping
the tests that would show it.
"""

from collections import Counter
from pathlib import Path

import pytest

_AVX512 = ("avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl")

# level -> the flags of /proc/cpuinfo that its instructions need
LEVELS: dict[str, tuple[str, ...]] = {
    "avx2": ("avx2",),
    "avx_vnni": ("avx2", "avx_vnni"),
    "avx512": _AVX512,
    "avx512_vnni": (*_AVX512, "avx512_vnni"),
    "amx_int8": (*_AVX512, "avx512_vnni", "amx_tile", "amx_int8"),
}

exercised: set[str] = set()

# (operator, level) -> how many cases agreed with the oracle
conformance: Counter[tuple[str, str]] = Counter()


def cpu_flags() -> frozenset[str]:
    """This CPU's flags; empty where /proc/cpuinfo does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


FLAGS = cpu_flags()


def missing_features(level: str) -> list[str]:
    """The flags that `level` needs and this CPU lacks."""
    return [flag for flag in LEVELS[level] if flag not in FLAGS]


def host_levels() -> list[str]:
    """The levels that this host runs."""
    return [level for level in LEVELS if not missing_features(level)]


def isas(*levels: str, native: bool = False) -> list:
    """Levels as parameters of a test, each skipped by name where the CPU cannot run it and no emulator does.

    `@pytest.mark.parametrize("isa", isas("avx2", "avx512_vnni"))`; without arguments, all levels. `native`: the test
    needs the CPU itself, because it runs kernels by other ways than `emulated.cpu` takes over.
    """
    return [pytest.param(level, marks=mark(level, native)) for level in levels or LEVELS]


def mark(level: str, native: bool = False) -> pytest.MarkDecorator:
    """The mark of a parameter that stands for a level; `native` as in `isas`."""
    return pytest.mark.isa(level) if native else pytest.mark.isa(level, emulate=True)


def record_isa(level: str) -> None:
    """Note that a kernel of `level` has run; passing tests marked `isa(level)` need no call."""
    if level not in LEVELS:
        raise ValueError(f"no such level: {level}")
    exercised.add(level)


def record_conformance(op: str, level: str, cases: int = 1) -> None:
    """Note that `cases` of operator `op` agreed with the oracle in kernels of `level`: a row of the summary's table.

    An operator that is in the table must have cases at every level that this CPU has.
    """
    record_isa(level)
    conformance[op, level] += cases


def conformance_rows() -> list[tuple[str, list[str]]]:
    """The table: each operator, and for each level its cases, "none" if there should be some, or "-".

    A level that this CPU lacks was emulated.
    """
    rows = []
    for op in sorted({op for op, _ in conformance}):
        cells = []
        for level in LEVELS:
            cases, lacks = conformance[op, level], bool(missing_features(level))
            if cases:
                cells.append(f"{cases} emulated" if lacks else str(cases))
            else:
                cells.append("-" if lacks else "none")
        rows.append((op, cells))
    return rows


def lacking() -> list[str]:
    """The operators of the table that a level of this host did not compute."""
    return [op for op, cells in conformance_rows() if "none" in cells]
