"""Kernels compiled on first use, and kept on disk.

A kernel's library is named by everything that decides its code: operator, parameters, target, and a digest of this
package's own sources. It ends with a digest of itself: a file that does not match, be it cut short or damaged, is
compiled again. It is written under another name and renamed, so that processes which compile the same kernel at the
same time each leave a whole file.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowgemm.errors import ArtifactError
from lowgemm.targets import CpuTarget

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

_PACKAGE = Path(__file__).parent.parent
# What decides the code of a kernel, beside its parameters.
_SOURCES = (
    "ops",
    "statements.py",
    "topi",
    "schedules",
    "intrin",
    "artifact",
    "packing.py",
    "packing_panels.py",
    "quant",
    "tiling",
    "codegen.py",
    "targets",
)
_DIGEST_BYTES = 32
_FLAGS = ("-std=gnu11", "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", "-s")


class Library:
    """The compiled functions of one operator and parameter set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = _load(path)
        self._handle.lgops_hook(runtime().hooks)
        self._functions: dict[tuple[str, ...], ctypes.Array] = {}

    def functions(self, symbols: tuple[str, ...]) -> ctypes.Array:
        """Where the functions `symbols` of the kernel's module begin, as an array of pointers; not to be changed."""
        found = self._functions.get(symbols)
        if found is None:
            each = [getattr(self._handle, f"__tvm_ffi_{symbol}") for symbol in symbols]
            found = (ctypes.c_void_p * len(each))(*(ctypes.cast(f, ctypes.c_void_p) for f in each))
            self._functions[symbols] = found
        return found


class Runtime:
    """The native side that all kernels share: calls, the thread pool, temporary buffers."""

    def __init__(self, path: Path) -> None:
        self.handle = _load(path)
        self.run = self.handle.lgops_run
        self.run.argtypes = [ctypes.c_void_p]
        self.handle.lgops_message.restype = ctypes.c_char_p
        self._storage = (ctypes.c_void_p * 5)()
        self.hooks = ctypes.byref(self._storage)
        self.handle.lgops_connect(self.hooks)
        self.threads = len(os.sched_getaffinity(0))
        self.set_threads(self.threads)

    def set_threads(self, threads: int) -> None:
        """Share work among `threads` threads from now on."""
        if self.handle.lgops_set_threads(threads) != 0:
            raise ArtifactError(f"cannot start {threads} threads")
        self.threads = threads

    def message(self) -> str:
        """Why this thread's last call failed."""
        return self.handle.lgops_message().decode(errors="replace")


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except (
        OSError
    ) as error:  # a folder from which nothing may be executed, or the file has gone meanwhile
        raise ArtifactError(f"cannot load a compiled kernel: {error}") from error


_lock = threading.Lock()
_loaded: dict[str, Library] = {}
_runtime: Runtime | None = None


def kernels(
    op: str,
    params: Mapping[str, Any],
    target: CpuTarget,
    make: Callable[[], Mapping[str, PrimFunc]],
) -> Library:
    """The library of operator `op` with `params` (values that JSON can hold) for `target`.

    `make` gives the scheduled functions by symbol; it is called only if neither this process nor the disk has them.

    Raises:
        ArtifactError: there is no C compiler, or the cache's folder cannot be written.
    """
    view = (target.level, target.summed, target.paired)
    identity = [op, params, *view, target.features, target.llvm_features]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    library = _loaded.get(key)
    if library is None:
        with _lock:
            library = _loaded.get(key) or Library(_on_disk(f"{op}-{key}", make, target))
            _loaded[key] = library
    return library


def runtime() -> Runtime:
    """The native side, compiled on the very first use."""
    global _runtime
    if _runtime is None:
        path = _cached("runtime", _build_runtime)
        _runtime = Runtime(path)
    return _runtime


def cache_folder() -> Path:
    """Where compiled kernels are kept: $LOWGEMM_CACHE, or `lowgemm` in the user's cache folder, by source digest."""
    root = os.environ.get("LOWGEMM_CACHE")
    if not root:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(base) / "lowgemm"
    # Absolute: the linker works in a folder of its own.
    return Path(root).absolute() / "ops" / _source_digest()


def _on_disk(name: str, make, target: CpuTarget) -> Path:
    def build(folder: Path) -> Path:
        # The very first time, the C compiler works beside TVM.
        with ThreadPoolExecutor(2) as beside:
            stub = beside.submit(_cached, "stub", _build_stub)
            beside.submit(_cached, "runtime", _build_runtime)
            return _build(folder, make(), target, stub)

    return _cached(name, build)


def _cached(name: str, build: Callable[[Path], Path]) -> Path:
    path = cache_folder() / f"{name}.so"
    if _whole(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as folder:
            built = build(Path(folder))
            content = built.read_bytes()
            # Behind what the loader reads; it does not mind.
            built.write_bytes(content + hashlib.sha256(content).digest())
            os.replace(built, path)
    except OSError as error:
        raise ArtifactError(
            f"cannot keep compiled kernels in {path.parent}: {error.strerror}; name another folder in LOWGEMM_CACHE"
        ) from error
    return path


def _whole(path: Path) -> bool:
    """Whether the file is there and is what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return hashlib.sha256(body).digest() == digest


def _build(
    folder: Path, functions: Mapping[str, PrimFunc], target: CpuTarget, stub: Future[Path]
) -> Path:
    import tvm

    from lowgemm import codegen
    from lowgemm.artifact.objects import emit_object, unaligned

    def emit(share: int) -> str:
        names = list(functions)[share::shares]
        named = {n: unaligned(functions[n].with_attr("global_symbol", n)) for n in names}
        path = folder / f"kernels{share}.o"
        # `Call` describes arguments that have been checked.
        code = emit_object(tvm.IRModule(named), codegen.llvm_target(target), trusting=True)
        path.write_bytes(code)
        return path.name

    # LLVM, which takes most of the time, does not hold Python's lock.
    shares = min(len(functions), len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(shares) as workers:
        objects = list(workers.map(emit, range(shares)))
    return _link(folder, "library.so", *objects, str(stub.result()))


def _build_runtime(folder: Path) -> Path:
    sources = [_PACKAGE / "ops/csrc/ops.c"]
    sources += [_PACKAGE / "artifact/csrc" / name for name in ("threads.c", "memory.c")]
    return _link(folder, "runtime.so", *_includes(), *map(str, sources))


def _build_stub(folder: Path) -> Path:
    return _link(folder, "stub.o", "-c", *_includes(), str(_PACKAGE / "ops/csrc/stub.c"))


def _includes() -> list[str]:
    return [f"-I{_PACKAGE / 'artifact/csrc'}", f"-I{_PACKAGE / 'ops/csrc'}"]


def _link(folder: Path, output: str, *arguments: str) -> Path:
    from lowgemm.artifact.build import find_compiler

    compiler = find_compiler()
    flags = [f for f in _FLAGS if output.endswith(".so") or f not in ("-shared", "-s")]
    command = [*compiler, *flags, "-o", output, *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["it wrote nothing, not even a message"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise ArtifactError(f"{compiler[0]} failed to link a kernel: {reason}")
    return folder / output


@functools.cache
def _source_digest() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = _PACKAGE / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in (".py", ".c", ".h"):
                digest.update(file.read_bytes())
    digest.update(" ".join(_FLAGS).encode())
    for package in ("tvm", "tvm_ffi"):  # importlib.metadata would take longer than all the rest
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            digest.update((Path(folder) / "_version.py").read_bytes())
    return digest.hexdigest()[:16]
