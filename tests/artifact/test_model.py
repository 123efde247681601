"""A real network's library: its bytes, its levels, and running it where nothing else is installed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import lowgemm
from lowgemm.demo import load_digits

import libraries
from onnx_models import model, node

IMAGE = load_digits().test[:1]


@pytest.fixture(scope="module")
def logits(digits_library: Path) -> np.ndarray:
    return lowgemm.load(digits_library, threads=1)({"image": IMAGE})["logits"]


def python(code: str, *arguments: object, **environment: str) -> str:
    """What a fresh interpreter prints that runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_model_gives_the_same_bytes(
    quantized_digits: Path, digits_library: Path, tmp_path: Path
) -> None:
    code = """
import sys, lowgemm
lowgemm.compile(sys.argv[1], target="avx512_vnni, avx2").export(sys.argv[2])
"""
    again = tmp_path / "again.so"
    python(code, quantized_digits, again, PYTHONHASHSEED="1", TMPDIR=str(tmp_path))
    assert again.read_bytes() == digits_library.read_bytes()
    assert again.with_suffix(".h").read_bytes() == digits_library.with_suffix(".h").read_bytes()


def test_no_path_of_this_machine_inside(digits_library: Path) -> None:
    content = digits_library.read_bytes()
    for folder in (Path.home(), tempfile.gettempdir(), libraries.CSRC.parents[2], sys.prefix):
        if len(str(folder)) > 1:  # "/" is in every file
            assert os.fsencode(str(folder)) not in content


@pytest.mark.isa("avx512_vnni")
@pytest.mark.parametrize("forced", ["", "avx2", "avx512_vnni"])
def test_levels_agree(
    digits_library: Path, logits: np.ndarray, forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWGEMM_ISA", forced)
    for threads in (1, 3):
        net = lowgemm.load(digits_library, threads=threads)
        assert net.level == (forced or "avx512_vnni")
        assert np.array_equal(net({"image": IMAGE})["logits"], logits)


@pytest.mark.parametrize("offset", [1, 4, 32])
def test_unaligned_buffers(digits_library: Path, logits: np.ndarray, offset: int) -> None:
    """Kernels take an element's address; what is at another the runtime copies."""

    def moved(array: np.ndarray) -> np.ndarray:
        raw = np.zeros(array.nbytes + 128, np.uint8)
        start = -raw.ctypes.data % 64 + offset
        view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[:] = array
        return view

    bound = lowgemm.load(digits_library).bind(
        {"image": moved(IMAGE)}, {"logits": moved(np.zeros_like(logits))}
    )
    assert np.array_equal(bound()["logits"], logits)


def test_kernels_that_need_nothing_of_the_runtime(tmp_path: Path) -> None:
    """Neither threads nor temporary memory: TVM then leaves out the symbols for them."""
    constants = {"s": np.float32(0.5), "z": np.uint8(128)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    proto = model(nodes, {"x": ("float32", (1, 4))}, "y", constants)
    onnx.save(proto, tmp_path / "tiny.onnx")
    lowgemm.compile(tmp_path / "tiny.onnx").export(tmp_path / "tiny.so")
    x = np.array([[0.2, 0.3, -1000, 1000]], np.float32)
    y = lowgemm.load(tmp_path / "tiny.so")({"x": x})["y"]
    assert np.array_equal(y, np.array([[0, 0.5, -64, 63.5]], np.float32))


def test_runs_without_the_compiler(
    digits_library: Path, logits: np.ndarray, tmp_path: Path
) -> None:
    """numpy is all that is there: every other package that was installed cannot be imported."""
    code = """
import sys, importlib.abc
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "lowgemm"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
try:
    import tvm
    sys.exit("tvm was imported")
except ModuleNotFoundError:
    pass
import numpy, lowgemm
image = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], lowgemm.load(sys.argv[1])({"image": image})["logits"])
"""
    np.save(tmp_path / "image.npy", IMAGE)
    python(code, digits_library, tmp_path / "image.npy", tmp_path / "logits.npy")
    assert np.array_equal(np.load(tmp_path / "logits.npy"), logits)


class TestTvmFfi:
    """The library as a module of tvm_ffi."""

    @pytest.fixture
    def run(self, digits_library: Path):
        tvm_ffi = pytest.importorskip("tvm_ffi")
        return tvm_ffi.load_module(str(digits_library))["run"]

    def test_result(self, run, logits: np.ndarray) -> None:
        result = np.zeros_like(logits)
        run(IMAGE, result)
        assert np.array_equal(result, logits)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((IMAGE,), "the inputs, then the outputs"),
            ((IMAGE, 3), "logits is not a tensor"),
            ((IMAGE, np.zeros((1, 11), np.float32)), "tensor logits"),
            ((IMAGE, np.zeros((1, 10), np.int32)), "tensor logits"),
            ((IMAGE, np.zeros((1, 20), np.float32)[:, ::2]), "tensor logits"),
        ],
        ids=["count", "number", "shape", "dtype", "strided"],
    )
    def test_refuses(self, run, arguments: tuple, message: str) -> None:
        with pytest.raises(RuntimeError, match=message):
            run(*arguments)

    def test_unloads(self, digits_library: Path, tmp_path: Path) -> None:
        """No worker is left in code that is gone, nor a handler for forks."""
        pytest.importorskip("tvm_ffi")
        code = """
import gc, os, sys, numpy, tvm_ffi
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
image, logits = numpy.load(sys.argv[2]), numpy.zeros((1, 10), numpy.float32)
module = tvm_ffi.load_module(sys.argv[1], keep_module_alive=False)
module["run"](image, logits)
assert logits.any()
del module
gc.collect()
assert threads() == before, (threads(), before)
assert "digits.so" not in open("/proc/self/maps").read()
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        np.save(tmp_path / "image.npy", IMAGE)
        assert python(code, digits_library, tmp_path / "image.npy") == "0\n"
