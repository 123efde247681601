"""Levels that this CPU lacks, run on an emulated one: Bochs, from the wheel `bochscpu-python`.

Within `cpu(level)` the calls of `lowgemm.ops` and of loaded models run on a CPU that has the level's features and no
vector instructions beyond them: others raise `EmulationError`, as does a touch of memory that is not there. Work is not
shared among threads, whatever number is set: the library's own would run it natively. The wheel's Bochs is without AMX,
and `schedules/amx_emulator.c` carries out the tile instructions.

`emulated.c` has the CPU itself.
"""

import ctypes
import importlib.util
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import tvm

from lowgemm import codegen, targets
from lowgemm.artifact.build import find_compiler
from lowgemm.artifact.objects import emit_object
from lowgemm.ops import _library
from lowgemm.ops._call import Call
from lowgemm.runtime._library import open_library

WHEEL = "bochscpu-python"

# Bochs's numbers of CPU models, and what is added to them so that the level's features and no more are there.
_HASWELL, _SKYLAKE_X, _SAPPHIRE_RAPIDS = 24, 26, 30
# Features that are added do not show in CPUID, by which a model's library chooses its level: it does so on a CPU of
# its own, on which all of them show but AMX.
_CHOOSER = "chooser"
_MODELS = {
    "avx2": (_HASWELL, ""),
    "avx_vnni": (_HASWELL, "avx_vnni"),
    "avx512": (_SKYLAKE_X, ""),
    "avx512_vnni": (_SKYLAKE_X, "avx512vnni"),
    "amx_int8": (_SKYLAKE_X, "avx512vnni"),
    _CHOOSER: (_SAPPHIRE_RAPIDS, ""),
}


class EmulationError(Exception):
    """The emulated CPU stopped before the function returned."""


def missing() -> str | None:
    """Why there is no emulator, if there is none."""
    if importlib.util.find_spec("bochscpu") is None:
        return f"the emulator is missing: pip install {WHEEL}, which is in the extra `test`"
    return None


class Emulator:
    """The one emulated CPU of this process.

    Raises:
        EmulationError: the wheel is missing, or another version than is known here.
    """

    def __init__(self) -> None:
        if why := missing():
            raise EmulationError(why)
        spec = importlib.util.find_spec("bochscpu")
        (folder,) = spec.submodule_search_locations  # type: ignore[union-attr]
        (path,) = Path(folder).glob("_bochscpu*.so")
        self.library = _load()
        self.library.emu_message.restype = ctypes.c_char_p
        self._lock = threading.Lock()
        self._level: str | None = None
        self._check(self.library.emu_open(str(path).encode()))

    def _check(self, status: int) -> None:
        if status != 0:
            raise EmulationError(self.library.emu_message().decode())

    def call(self, level: str, function: int, *arguments: int) -> int:
        """Call the function at an address with up to six integers or addresses, on a CPU of `level`.

        Returns:
            What it leaves in the register rax.

        Raises:
            EmulationError: it cannot go on.
        """
        values = (ctypes.c_uint64 * 6)(*arguments)
        result = ctypes.c_uint64()
        with self._lock:
            if level != self._level:
                model, features = _MODELS[level]
                self.library.emu_cpu(model, features.encode())
                tiles = ctypes.cast(self.library.amx_emulate, ctypes.c_void_p)
                self.library.emu_substitute(tiles if level == "amx_int8" else None)
                self._level = level
            status = self.library.emu_call(
                ctypes.c_uint64(function), values, len(arguments), ctypes.byref(result)
            )
            self._check(status)
        return result.value


def _load() -> ctypes.CDLL:
    """The compiled CPU; Bochs looks for names in it, so they are global."""
    here = Path(__file__).parent
    sources = [str(here / "emulated.c"), str(here / "schedules/amx_emulator.c")]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/emulated.so"
        subprocess.run([*find_compiler(), *flags, "-o", path, *sources], check=True)
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


_emulator: Emulator | None = None

# The level that `cpu` emulates at the moment, if any.
current: str | None = None


def emulator() -> Emulator:
    """The emulator, made when it is first asked for."""
    global _emulator
    if _emulator is None:
        _emulator = Emulator()
    return _emulator


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def _run_of(level: str) -> Callable[[int], int]:
    """`lgops_run`, emulated."""
    used = emulator()
    native = _address(_library.runtime().handle.lgops_run)

    def run(call: int) -> int:
        _library.runtime().message()  # its thread-local variables are there from now on
        return ctypes.c_int32(used.call(level, native, call)).value

    return run


def functions(module: tvm.IRModule, target: targets.CpuTarget) -> Callable[..., None]:
    """`call(symbol, *arrays)` of the functions of a module, within `cpu`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernels.o").write_bytes(emit_object(module, codegen.llvm_target(target)))
        stub = _library._cached("stub", _library._build_stub)
        library = _library.Library(_library._link(folder, "library.so", "kernels.o", str(stub)))
    return lambda symbol, *arrays: Call(library, symbol, arrays)()


def _open_library(level: str) -> Callable[[Path], ctypes.CDLL]:
    """`open_library` of models, which create their contexts and compute on the emulated CPU, in one thread."""

    def opened(path: Path) -> ctypes.CDLL:
        library = open_library(path)
        create, run = (_address(getattr(library, f"lowgemm_{name}")) for name in ("create", "run"))

        def create_emulated(threads: int) -> int:
            del threads
            library.lowgemm_last_error()  # its thread-local variables are there from now on
            return emulator().call(_CHOOSER, create, 1)

        def run_emulated(handle: int, inputs: ctypes.Array, outputs: ctypes.Array) -> int:
            library.lowgemm_last_error()
            addresses = ctypes.addressof(inputs), ctypes.addressof(outputs)
            return ctypes.c_int32(emulator().call(level, run, handle, *addresses)).value

        vars(library).update(lowgemm_create=create_emulated, lowgemm_run=run_emulated)
        return library

    return opened


@contextmanager
def cpu(level: str) -> Iterator[None]:
    """Let calls that are prepared within it run on an emulated CPU of `level`, which is the host's, too."""
    features = frozenset(targets.LEVELS[level].features)
    runtime = _library.runtime()
    threads, set_threads = runtime.threads, runtime.set_threads
    set_threads(1)
    runtime.threads = threads
    try:
        with (
            mock.patch.object(runtime, "run", _run_of(level)),
            mock.patch.object(
                runtime, "set_threads", lambda count: setattr(runtime, "threads", count)
            ),
            mock.patch("lowgemm.targets.host_features", lambda: features),
            mock.patch("lowgemm.targets._levels.host_features", lambda: features),
            mock.patch("lowgemm.targets.permit_tiles", lambda: None),
            mock.patch("lowgemm.runtime._net.open_library", _open_library(level)),
            mock.patch(f"{__name__}.current", level),
        ):
            yield
    finally:
        set_threads(threads)
