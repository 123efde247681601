"""Which variant of a library runs: the first whose features the CPU has, or the one that LOWGEMM_ISA names."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import lowgemm
from lowgemm import targets
from lowgemm.artifact.build import find_compiler
from lowgemm.errors import TargetError

import isa
import libraries

_ABSENT = "no_such_feature"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Best first: a level that no CPU has, which adds once; then one that adds twice, then one three times."""
    return libraries.make_library(
        tmp_path_factory.mktemp("levels") / "model.so",
        libraries.variant("avx512_vnni", [_ABSENT], ["add"]),
        libraries.variant("avx512", [], ["add", "add"]),
        libraries.variant("avx2", [], ["add", "add", "shared"]),
    )


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOWGEMM_ISA", raising=False)


def additions(net: lowgemm.Net) -> float:
    """How many times the net adds the constant."""
    result = net({"x": np.zeros(libraries.SHAPE, np.float32)})["y"]
    times = result.flat[1] / libraries.CONSTANT.flat[1]
    assert np.array_equal(result, times * libraries.CONSTANT)
    return times


def test_best_level_that_the_cpu_has(library: Path) -> None:
    net = lowgemm.load(library)
    assert (net.level, additions(net)) == ("avx512", 2)


@pytest.mark.parametrize(("level", "times"), [("avx512", 2), ("avx2", 3)])
def test_forced(library: Path, monkeypatch: pytest.MonkeyPatch, level: str, times: int) -> None:
    monkeypatch.setenv("LOWGEMM_ISA", level)
    net = lowgemm.load(library)
    assert (net.level, additions(net)) == (level, times)


def test_empty_variable_forces_nothing(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWGEMM_ISA", "")
    assert lowgemm.load(library).level == "avx512"


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("avx512_vnni", ["avx512_vnni", _ABSENT]),
        ("avx_vnni", ["LOWGEMM_ISA=avx_vnni", "not compiled for"]),
    ],
    ids=["feature", "level"],
)
def test_forced_to_what_cannot_run(
    library: Path, monkeypatch: pytest.MonkeyPatch, level: str, words: list[str]
) -> None:
    monkeypatch.setenv("LOWGEMM_ISA", level)
    with pytest.raises(TargetError) as caught:
        lowgemm.load(library)
    for word in words:
        assert word in str(caught.value)


def test_cpu_without_the_features(tmp_path: Path) -> None:
    variants = [
        libraries.variant("avx512_vnni", ["avx2", _ABSENT]),
        libraries.variant("avx2", ["another_one"]),
    ]
    path = libraries.make_library(tmp_path / "model.so", *variants)
    with pytest.raises(TargetError) as caught:
        lowgemm.load(path)
    message = str(caught.value)
    assert f"avx512_vnni needs {_ABSENT}" in message and "avx2 needs another_one" in message


def test_cpuid_agrees_with_the_operating_system(tmp_path: Path) -> None:
    names = re.findall(r'^    {"(\w+)", ', (libraries.CSRC / "cpu.c").read_text(), re.MULTILINE)
    assert {f for level in targets.LEVELS.values() for f in level.features} <= set(names)
    (tmp_path / "has.c").write_text(
        '#include <stdio.h>\n#include "lowgemm_internal.h"\n'
        "int main(int count, char **names) {\n"
        "  for (int i = 1; i < count; i++) if (lg_cpu_has(names[i])) puts(names[i]);\n"
        "}\n"
    )
    sources = ["has.c", str(libraries.CSRC / "cpu.c"), f"-I{libraries.CSRC}"]
    subprocess.run([*find_compiler(), *sources, "-o", "has"], cwd=tmp_path, check=True)
    found = subprocess.run(
        ["./has", *names, _ABSENT], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(found.stdout.split()) == isa.FLAGS & set(names)
