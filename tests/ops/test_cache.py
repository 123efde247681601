"""Kernels on disk: compiled once, shared by processes, rebuilt if damaged, never taken for others."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lowgemm import ops, targets
from lowgemm.errors import ArtifactError, TargetError
from lowgemm.ops import _library

from gemm_check import Product, operands
from isa import host_levels

PACKAGE = Path(_library.__file__).parent.parent

# Multiplies with two kernels, says what it needed for that, and whether the result was right.
USER = """
import sys
import numpy as np
from lowgemm import ops

a = np.arange(24, dtype=np.uint8).reshape(4, 6)
b = np.arange(18, dtype=np.int8).reshape(6, 3) - 9
sums = ops.pack_gemm(b)(a)
codes = ops.pack_gemm(b, output=ops.Output("int8", multiplier=0.125))(a)
wanted = a.astype(int) @ b.astype(int)
assert (sums == wanted).all() and (codes == np.clip(np.rint(wanted / 8), -128, 127)).all()
print("compiler" if "tvm" in sys.modules else "none")
"""


def start(cwd: Path) -> subprocess.Popen[str]:
    """A process with its cache in `cwd`, by a relative path."""
    environment = {**os.environ, "LOWGEMM_CACHE": "kept", "PYTHONPATH": str(PACKAGE.parent)}
    environment.pop("LOWGEMM_ISA", None)
    return subprocess.Popen(
        [sys.executable, "-c", USER],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


def entries(cwd: Path) -> list[Path]:
    (inner,) = (cwd / "kept/ops").iterdir()
    return sorted(inner.iterdir())


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """Two fill it at once; what they leave serves others without a compiler; what is damaged is built again."""
    processes = [start(tmp_path) for _ in range(2)]
    assert [finish(process) for process in processes] == ["compiler", "compiler"]
    found = entries(tmp_path)
    kinds = [path.name.partition("-")[0] for path in found]
    assert kinds == ["qgemm", "qgemm", "runtime.so", "stub.so"]
    assert all(_library._whole(path) for path in found)
    assert finish(start(tmp_path)) == "none"

    cut, bent, empty, _ = found
    cut.write_bytes(cut.read_bytes()[:-1000])
    content = bytearray(bent.read_bytes())
    content[len(content) // 2] ^= 1
    bent.write_bytes(content)
    empty.write_bytes(b"")
    assert not any(_library._whole(path) for path in (cut, bent, empty))
    assert finish(start(tmp_path)) == "compiler"
    assert entries(tmp_path) == found
    assert all(_library._whole(path) for path in found)
    assert finish(start(tmp_path)) == "none"


def test_a_file_that_is_whole_is_not_built_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOWGEMM_CACHE", str(tmp_path))
    built = []

    def build(folder: Path) -> Path:
        built.append(folder)
        path = folder / "made"
        path.write_bytes(b"content")
        return path

    first = _library._cached("thing", build)
    assert first.read_bytes().startswith(b"content")
    assert _library._cached("thing", build) == first
    assert len(built) == 1
    for damage in (b"", b"content", first.read_bytes()[:-1], b"Content" + first.read_bytes()[7:]):
        first.write_bytes(damage)
        assert _library._cached("thing", build).read_bytes().startswith(b"content")
    assert len(built) == 5
    assert list(first.parent.iterdir()) == [first]  # nothing half-built stays


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOWGEMM_CACHE", str(tmp_path))

    def build(folder: Path) -> Path:
        (folder / "half").write_bytes(b"...")
        raise ArtifactError("no compiler")

    with pytest.raises(ArtifactError, match=r"^no compiler$"):
        _library._cached("thing", build)
    assert list(_library.cache_folder().iterdir()) == []


def test_unwritable_folder(tmp_path, monkeypatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("LOWGEMM_CACHE", str(blocked))
    a, b = operands(np.random.default_rng(0), 1, 11, 3)
    with pytest.raises(ArtifactError) as caught:
        ops.pack_gemm(b, output=ops.Output("uint8", 0.25, 77, row_scale=True))(
            a, row_scale=np.ones(1, np.float32)
        )
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"cannot keep compiled kernels in {blocked}")
    assert message.endswith("Not a directory; name another folder in LOWGEMM_CACHE")


def test_a_library_that_cannot_be_loaded(tmp_path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(b"no library")
    with pytest.raises(
        ArtifactError, match=r"^cannot load a compiled kernel: .*library\.so: "
    ) as caught:
        _library.Library(path)
    assert "\n" not in str(caught.value)


def test_folder_by_default(monkeypatch) -> None:
    monkeypatch.delenv("LOWGEMM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    digest = _library._source_digest()
    assert _library.cache_folder() == Path("/somewhere/lowgemm/ops") / digest
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _library.cache_folder() == Path.home() / ".cache/lowgemm/ops" / digest


def test_sources_name_the_folder(tmp_path, monkeypatch) -> None:
    """A kernel of other sources is another kernel."""
    copy = tmp_path / "lowgemm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_library, "_PACKAGE", copy)
    digest = _library._source_digest.__wrapped__
    before = digest()
    for name in ("topi/_output.py", "schedules/_gemm.py", "tiling/_gemm.py", "ops/csrc/ops.c"):
        with (copy / name).open("a") as file:
            file.write("\n")
        after = digest()
        assert after != before, name
        before = after
    (copy / "cli/_main.py").write_text("")
    assert digest() == before


def test_all_that_decides_code_is_in_the_digest() -> None:
    """What the sources of kernels import is part of the sources."""
    parts = {Path(name).stem for name in _library._SOURCES}
    for part in parts - {"ops", "artifact", "codegen"}:
        path = PACKAGE / part
        for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.ImportFrom) or not node.module:
                    continue
                root, _, rest = node.module.partition(".")
                if root == "lowgemm":
                    used = [rest] if rest else [alias.name for alias in node.names]
                    names = {name.partition(".")[0] for name in used} - {"errors"}
                    assert names <= parts, f"{file.relative_to(PACKAGE)} imports {names}"


def test_parameters_and_level_name_the_file(monkeypatch, tmp_path) -> None:
    names = []

    def cached(name, build):
        names.append(name)
        raise ArtifactError("enough")

    monkeypatch.setattr(_library, "_cached", cached)
    levels = list(targets.LEVELS.values())
    cases = [("one", {"x": 1}, level) for level in levels]
    cases += [("two", {"x": 1}, levels[0]), ("one", {"x": 2}, levels[0]), ("one", {}, levels[0])]
    for op, params, level in cases:
        with pytest.raises(ArtifactError):
            _library.kernels(op, params, level, dict)
    assert len(set(names)) == len(cases)
    with pytest.raises(ArtifactError):
        _library.kernels("two", {"x": 1}, levels[0], dict)
    assert names[-1] == names[len(levels)]


def test_level_of_a_call(monkeypatch) -> None:
    b = np.ones((2, 2), np.int8)
    monkeypatch.delenv("LOWGEMM_ISA", raising=False)
    assert ops.pack_gemm(b).target.level == targets.host().level
    for level in host_levels():
        assert ops.pack_gemm(b, target=level).target.level == level
        monkeypatch.setenv("LOWGEMM_ISA", level)
        assert ops.pack_gemm(b).target.level == level
    assert ops.pack_gemm(b, target=targets.LEVELS["avx2"]).target.level == "avx2"
    # What is compiled when it is called looks again each time.
    ops.min_max(np.zeros(3, np.float32))
    monkeypatch.setenv("LOWGEMM_ISA", "sse")
    for call in (lambda: ops.pack_gemm(b), lambda: ops.min_max(np.zeros(3, np.float32))):
        with pytest.raises(TargetError, match="sse"):
            call()


@pytest.mark.parametrize("level", host_levels())
def test_level_of_the_environment_gives_its_kernel(level: str, monkeypatch) -> None:
    a, b = operands(np.random.default_rng(0), 3, 37, 21)
    monkeypatch.setenv("LOWGEMM_ISA", level)
    product = Product(b)
    product.check(ops.pack_gemm(b), a)


def test_level_that_the_cpu_lacks(monkeypatch) -> None:
    monkeypatch.setattr(
        targets, "host_features", lambda: frozenset(["avx2", "fma", "f16c", "bmi2"])
    )
    b = np.ones((2, 2), np.int8)
    with pytest.raises(TargetError, match=r"^target avx_vnni: this CPU lacks avx_vnni$"):
        ops.pack_gemm(b, target="avx_vnni")
    with pytest.raises(TargetError, match=r"^target: expected one level, got \"avx2,avx512\"$"):
        ops.pack_gemm(b, target="avx2,avx512")
    with pytest.raises(TargetError, match="nothing"):
        ops.pack_gemm(b, target="nothing")
