"""Which files are loaded, and what is told of those that are not."""

import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

import lowgemm
from lowgemm.artifact import _tables
from lowgemm.artifact.build import find_compiler
from lowgemm.errors import ArtifactError
from lowgemm.runtime import _library

import libraries

_NOTE = struct.pack("<III8sI", 8, 4, 1, b"lowgemm\0", _library.FORMAT)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return libraries.make_library(tmp_path_factory.mktemp("library") / "model.so").read_bytes()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        lowgemm.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.so", "no file")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, "cannot read")


@pytest.mark.parametrize(
    "text",
    [b"", b"\x7fELF", b"not a library", b"\x7fELF\2\1" + bytes(10), bytes(10000), _NOTE * 10],
    ids=["empty", "four bytes", "text", "header", "zeros", "note alone"],
)
def test_no_library(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file.so").write_bytes(text)
    refused(tmp_path / "file.so", "not a shared library")


def test_machine(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "arm.so").write_bytes(content[:18] + b"\xb7\0" + content[20:])
    refused(tmp_path / "arm.so", "x86-64")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_truncated(tmp_path: Path, content: bytes, share: float) -> None:
    (tmp_path / "cut.so").write_bytes(content[: int(len(content) * share)])
    refused(tmp_path / "cut.so", "truncated")


def test_newer_format(tmp_path: Path, content: bytes) -> None:
    assert content.count(_NOTE) == 1
    newer = _NOTE[:-4] + struct.pack("<I", _library.FORMAT + 1)
    (tmp_path / "newer.so").write_bytes(content.replace(_NOTE, newer))
    refused(tmp_path / "newer.so", f"format {_library.FORMAT + 1}", "install a newer")


def test_headers_of_nonsense(tmp_path: Path, content: bytes) -> None:
    """No byte of the headers brings the check to anything but acceptance or one of its own refusals."""
    path = tmp_path / "odd.so"
    for at in range(16, 64 + 56 * 8):
        path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
        try:
            _library.check_file(path)
        except ArtifactError as error:
            assert "odd.so" in str(error)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count reads")
def test_check_reads_the_headers_only(tmp_path: Path, content: bytes) -> None:
    """A library is loaded lazily, so looking at it must not read all its weights."""

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    path = tmp_path / "large.so"
    path.write_bytes(content + bytes(10_000_000))
    before = bytes_read()
    _library.check_file(path)
    assert bytes_read() - before < 100_000


def test_foreign_library_is_not_run(tmp_path: Path) -> None:
    """Loading runs a library's constructors, so what is not ours must not be loaded."""
    source, path, trace = tmp_path / "f.c", tmp_path / "foreign.so", tmp_path / "trace"
    source.write_text(
        "#include <stdio.h>\n"
        'const char marker[] = "lowgemm";\n'
        "__attribute__((constructor)) void start(void) {\n"
        f'  FILE *f = fopen("{trace}", "w"); if (f) fclose(f);\n'
        "}\n"
    )
    command = [*find_compiler(), "-shared", "-fPIC", str(source), "-o", str(path)]
    subprocess.run(command, check=True)
    refused(path, "not made by lowgemm")
    assert not trace.exists()


def test_library_that_took_the_place_of_a_loaded_one(tmp_path: Path) -> None:
    path, x = tmp_path / "model.so", np.zeros(libraries.SHAPE, np.float32)
    old = lowgemm.load(libraries.make_library(path))
    new = lowgemm.load(libraries.make_library(path, libraries.variant(kernels=["add"])))
    same = lowgemm.load(path)
    assert np.array_equal(old({"x": x})["y"], 2 * libraries.CONSTANT)
    assert np.array_equal(new({"x": x})["y"], libraries.CONSTANT)
    assert np.array_equal(same({"x": x})["y"], libraries.CONSTANT)


def test_relative_path(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.so").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert lowgemm.load("model.so").level == "avx2"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.so").write_bytes(content)
    (tmp_path / "model.so").chmod(0)
    refused(tmp_path / "model.so", "cannot read")


def test_one_format_everywhere() -> None:
    header = (libraries.CSRC / "lowgemm.h").read_text()
    assert _library.FORMAT == _tables.FORMAT
    assert f"#define LOWGEMM_FORMAT {_library.FORMAT}\n" in header
