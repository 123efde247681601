"""Link a plan into one shared library with the system's C compiler."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from lowgemm.artifact._tables import FORMAT, manifest, tables
from lowgemm.artifact.plan import Plan
from lowgemm.errors import ArtifactError

_SOURCES = ("runtime.c", "threads.c", "memory.c", "cpu.c")
_HEADERS = ("lowgemm.h", "lowgemm_internal.h")

# The kernels come from TVM; these flags are for the runtime and the tables. No build id and no debug information: the
# same plan gives the same bytes.
_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-g0",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-pthread",
    "-s",
    "-Wl,--build-id=none",
    "-Wl,-Bsymbolic",
    "-Wl,-z,noexecstack",
]

# An ELF note, which says what the file is before any of its code runs: owner, type 1, the format's number.
_FORMAT_NOTE = f"""\
.section .note.lowgemm,"a",@note
.balign 4
.long 8, 4, 1
.asciz "lowgemm"
.long {FORMAT}
"""

_EXPORTS = "{ global: lowgemm_*; __tvm_ffi_run; local: *; };\n"


def build(
    plan: Plan, path: Path, header_path: Path | None = None, runtime: Path | None = None
) -> None:
    """Write the shared library of `plan` at `path`, and the C header at `header_path`.

    Both are written under other names first and then renamed: at no time is there half a file. `runtime` is a folder in
    which `compile_runtime` left the C runtime, for whoever links many libraries.

    Raises:
        ArtifactError: there is no C compiler, it fails, or the file cannot be written.
    """
    if path == header_path:
        raise ArtifactError(f"{path} is the name of the C header; name the library otherwise")
    compiler = find_compiler()
    if not path.parent.is_dir():
        raise ArtifactError(f"cannot write {path}: there is no folder {path.parent}")
    with tempfile.TemporaryDirectory(prefix="lowgemm-") as folder:
        inputs = _write_sources(plan, Path(folder))
        if runtime is not None:
            inputs = [name for name in inputs if name not in _SOURCES]
            inputs += [str(runtime.absolute() / name) for name in _objects()]
        library = Path(folder) / "model.so"
        # Names relative to the folder: no path of this machine gets into the file.
        command = [
            *compiler,
            *_FLAGS,
            "-Wl,--version-script=exports.map",
            "-o",
            "model.so",
            *inputs,
            "-lm",
        ]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode != 0 or not library.is_file():
            lines = result.stderr.strip().splitlines() or ["it wrote nothing, not even a message"]
            reason = next((line for line in lines if "error" in line), lines[-1])
            raise ArtifactError(f"{shlex.join(compiler)} failed to link the model: {reason}")
        _install(library, path)
        if header_path is not None:
            _install(Path(folder) / "lowgemm.h", header_path)


def compile_runtime(folder: Path) -> None:
    """Compile the C runtime that every library holds, once for all that `build` links with `runtime=folder`.

    Raises:
        ArtifactError: there is no C compiler, or it fails.
    """
    compiler = find_compiler()
    sources = resources.files("lowgemm.artifact") / "csrc"
    for name in (*_SOURCES, *_HEADERS):
        (folder / name).write_bytes((sources / name).read_bytes())
    flags = [flag for flag in _FLAGS if flag not in ("-shared", "-s") and "-Wl" not in flag]
    command = [*compiler, *flags, "-c", *_SOURCES]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ArtifactError(f"{shlex.join(compiler)} failed to compile the runtime")


def _objects() -> list[str]:
    return [Path(name).with_suffix(".o").name for name in _SOURCES]


def find_compiler() -> list[str]:
    """The command of a C compiler: $CC, cc, gcc, clang, or the one in the ziglang package.

    Raises:
        ArtifactError: none is there.
    """
    if os.environ.get("CC"):
        command = shlex.split(os.environ["CC"])
        if shutil.which(command[0]):
            return command
        raise ArtifactError(f"CC={os.environ['CC']}: there is no such program")
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise ArtifactError(
        "no C compiler found to link the model: install gcc or clang, or run: pip install ziglang"
    )


def _write_sources(plan: Plan, folder: Path) -> list[str]:
    """Everything that is linked, in `folder`; returns the names for the compiler."""
    sources = resources.files("lowgemm.artifact") / "csrc"
    for name in (*_SOURCES, *_HEADERS):
        (folder / name).write_bytes((sources / name).read_bytes())
    (folder / "tables.c").write_text(tables(plan))
    (folder / "exports.map").write_text(_EXPORTS)
    (folder / "manifest.json").write_bytes(manifest(plan).encode() + b"\0")
    data = [_FORMAT_NOTE, _incbin("lg_manifest", "manifest.json")]
    names = [*_SOURCES, "tables.c", "data.s"]
    for index, variant in enumerate(plan.variants):
        (folder / f"constants_{index}.bin").write_bytes(variant.constants)
        data.append(_incbin(f"lg_constants_{index}", f"constants_{index}.bin"))
        for number, code in enumerate(variant.objects):
            names.append(f"kernels_{index}_{number}.o")
            (folder / names[-1]).write_bytes(code)
    (folder / "data.s").write_text("".join(data) + '.section .note.GNU-stack,"",@progbits\n')
    return names


def _incbin(symbol: str, file: str) -> str:
    # 64 bytes more, so that a vector load at the very end stays inside.
    return (
        f'.section .rodata,"a",@progbits\n.balign 64\n.globl {symbol}\n.hidden {symbol}\n'
        f'{symbol}:\n.incbin "{file}"\n.zero 64\n'
    )


def _install(source: Path, path: Path) -> None:
    # The folder of sources has a name of its own, so that two exports at the same time do not meet.
    temporary = path.with_name(f".{source.parent.name}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
