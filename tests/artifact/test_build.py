"""Linking: what is in the file and the header, and that a failure leaves nothing."""

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lowgemm.artifact.build import build, find_compiler
from lowgemm.errors import ArtifactError

import libraries

# glibc; one part of it or another, as the toolchain splits it
_ALLOWED_LIBRARIES = {
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "ld-linux-x86-64.so.2",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return libraries.make_library(tmp_path_factory.mktemp("build") / "model.so")


class Elf:
    """What the dynamic linker reads of a shared object, from its section headers."""

    def __init__(self, path: Path) -> None:
        self._data = data = path.read_bytes()
        (start,) = struct.unpack_from("<Q", data, 40)
        entry, count = struct.unpack_from("<HH", data, 58)
        # name, type, flags, address, offset, size, link, info, alignment, entry size
        self._sections = [
            struct.unpack_from("<IIQQQQIIQQ", data, start + entry * i) for i in range(count)
        ]

    def _entries(self, kind: int, form: str) -> list[tuple]:
        (found,) = [s for s in self._sections if s[1] == kind]
        names = self._sections[found[6]][4]
        rows = struct.iter_unpack(form, self._data[found[4] : found[4] + found[5]])
        return [(names, *row) for row in rows]

    def _string(self, at: int) -> str:
        return self._data[at : self._data.index(b"\0", at)].decode()

    def needed(self) -> set[str]:
        """The libraries it needs."""
        return {
            self._string(names + value) for names, tag, value in self._entries(6, "<QQ") if tag == 1
        }

    def exported(self) -> set[str]:
        """The symbols it defines for others."""
        symbols = self._entries(11, "<IBBHQQ")
        return {
            self._string(names + name)
            for names, name, info, _, section, _, _ in symbols
            if section != 0 and info >> 4 in (1, 2)
        }


def test_needs_only_the_c_library(library: Path) -> None:
    needed = Elf(library).needed()
    assert "libc.so.6" in needed
    assert needed <= _ALLOWED_LIBRARIES


def test_exports_what_the_header_declares(library: Path) -> None:
    header = re.sub(r"/\*.*?\*/", "", library.with_suffix(".h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"\b(lowgemm_\w+)\(", header))
    assert len(declared) > 10
    assert Elf(library).exported() == declared | {"__tvm_ffi_run"}


@pytest.mark.parametrize(
    ("language", "standard"), [("c", "c99"), ("c", "c11"), ("c++", "c++11"), ("c++", "c++20")]
)
def test_header_compiles_without_a_warning(
    library: Path, language: str, standard: str, tmp_path: Path
) -> None:
    (tmp_path / "use").write_text(
        '#include "model.h"\n#include "model.h"\nint main(void) { return lowgemm_num_inputs() != 1; }\n'
    )
    command = [*find_compiler(), "-x", language, f"-std={standard}", f"-I{library.parent}"]
    command += ["-Wall", "-Wextra", "-Werror", "-pedantic", "-c", "use", "-o", "use.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if language == "c++" and "cc1plus" in done.stderr:
        pytest.skip(f"{command[0]} is here without its C++ compiler")
    assert (done.returncode, done.stderr) == (0, "")


def test_same_plan_gives_the_same_bytes(library: Path, tmp_path: Path) -> None:
    again = libraries.make_library(tmp_path / "another name.so")
    assert again.read_bytes() == library.read_bytes()
    assert again.with_suffix(".h").read_bytes() == library.with_suffix(".h").read_bytes()


def test_no_path_of_this_machine_inside(library: Path) -> None:
    content = library.read_bytes()
    for folder in (Path.home(), tempfile.gettempdir(), libraries.CSRC, sys.prefix, library.parent):
        if len(str(folder)) > 1:  # "/" is in every file
            assert os.fsencode(str(folder)) not in content


def fake_compiler(folder: Path, script: str) -> str:
    path = folder / "fake-cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


class TestFailure:
    """A failure names its reason, leaves nothing new and keeps what was there."""

    @pytest.fixture(autouse=True)
    def keeps(self, tmp_path: Path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "model.so").write_text("old library")
        (out / "model.h").write_text("old header")
        yield
        assert {p.name: p.read_text() for p in out.iterdir()} == {
            "model.so": "old library",
            "model.h": "old header",
        }

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            (
                "echo 'note: x' >&2; echo 'k.c:1: error: boom' >&2; echo half >model.so; exit 1",
                "boom",
            ),
            ("echo 'ld: no space left' >&2; exit 1", "no space left"),
            ("exit 7", "wrote nothing"),
            ("kill -9 $$", "wrote nothing"),
            ("exit 0", "wrote nothing"),
        ],
        ids=["error", "last line", "silent", "killed", "nothing written"],
    )
    def test_compiler(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
    ) -> None:
        plan = libraries.plan()
        monkeypatch.setenv("CC", fake_compiler(tmp_path, script))
        with pytest.raises(ArtifactError, match=reason) as caught:
            build(plan, tmp_path / "out" / "model.so", tmp_path / "out" / "model.h")
        assert "fake-cc" in str(caught.value) and "\n" not in str(caught.value)

    def test_unknown_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = libraries.plan()
        monkeypatch.setenv("CC", "no-such-compiler")
        with pytest.raises(ArtifactError, match="CC=no-such-compiler"):
            build(plan, tmp_path / "out" / "model.so", tmp_path / "out" / "model.h")

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="there is no folder"):
            build(libraries.plan(), tmp_path / "nowhere" / "model.so")

    def test_library_named_as_its_header(self, tmp_path: Path) -> None:
        path = tmp_path / "model.h"
        with pytest.raises(ArtifactError, match="name the library otherwise"):
            build(libraries.plan(), path, header_path=path)

    def test_folder_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "taken.so").mkdir()
        with pytest.raises(ArtifactError, match=r"cannot write .*taken\.so"):
            build(libraries.plan(), tmp_path / "taken.so")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "taken.so"]


def test_no_compiler_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="install gcc or clang, or run: pip install ziglang"):
        find_compiler()


def test_command_with_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{sys.executable} -m ziglang cc")
    assert find_compiler() == [sys.executable, "-m", "ziglang", "cc"]
