"""The C interface where Python does not go: NULL, indices out of range, kernels that fail."""

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest

import lowgemm
from lowgemm.errors import LowgemmError
from lowgemm.runtime._library import PortInfo, StepInfo, open_library

import libraries

X = np.ones(libraries.SHAPE, np.float32)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return open_library(libraries.make_library(tmp_path_factory.mktemp("c") / "model.so"))


@pytest.fixture
def context(library: ctypes.CDLL):
    context = library.lowgemm_create(2)
    yield context
    library.lowgemm_destroy(context)


def pointers(*arrays: np.ndarray | None):
    values = [None if a is None else a.ctypes.data for a in arrays]
    return (ctypes.c_void_p * len(values))(*values)


def test_run(library: ctypes.CDLL, context: int) -> None:
    y = np.zeros_like(X)
    assert library.lowgemm_run(context, pointers(X), pointers(y)) == 0
    assert np.array_equal(y, X + 2 * libraries.CONSTANT)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (pointers(None), pointers(X), "input 0 is NULL"),
        (pointers(X), pointers(None), "output 0 is NULL"),
        (None, pointers(X), "input 0 is NULL"),
        (pointers(X), None, "output 0 is NULL"),
    ],
    ids=["input", "output", "inputs", "outputs"],
)
def test_null_buffer(library: ctypes.CDLL, context: int, inputs, outputs, message: str) -> None:
    assert library.lowgemm_run(context, inputs, outputs) == -1
    assert library.lowgemm_last_error().decode() == message


def test_null_context(library: ctypes.CDLL) -> None:
    library.lowgemm_destroy(None)
    assert library.lowgemm_run(None, pointers(X), pointers(X)) == -1
    assert library.lowgemm_last_error() == b"the context is NULL"


@pytest.mark.parametrize("index", [-1, 1, 2**31 - 1])
def test_index_out_of_range(library: ctypes.CDLL, context: int, index: int) -> None:
    info, step = PortInfo(), StepInfo()
    assert library.lowgemm_input(index, ctypes.byref(info)) == -1
    assert library.lowgemm_last_error().decode() == f"there is no input {index}"
    assert library.lowgemm_output(index, ctypes.byref(info)) == -1
    assert library.lowgemm_step(context, index + (index > 0), ctypes.byref(step)) == -1


def test_format(library: ctypes.CDLL) -> None:
    assert library.lowgemm_format() == 1


def test_error_is_of_the_thread(library: ctypes.CDLL) -> None:
    library.lowgemm_run(None, None, None)
    seen: list[bytes] = []
    other = threading.Thread(target=lambda: seen.append(library.lowgemm_last_error()))
    other.start()
    other.join()
    assert seen == [b""]
    assert library.lowgemm_last_error() == b"the context is NULL"


def test_time_of_a_step_only_while_profiling(library: ctypes.CDLL, context: int) -> None:
    step = StepInfo()
    for on in (0, 1):
        library.lowgemm_set_profiling(context, on)
        library.lowgemm_run(context, pointers(X), pointers(X.copy()))
        assert library.lowgemm_step(context, 1, ctypes.byref(step)) == 0
        assert (step.nanoseconds > 0) == bool(on)


def test_kernel_that_fails(tmp_path: Path) -> None:
    variant = libraries.variant(kernels=["add", "fail"])
    net = lowgemm.load(libraries.make_library(tmp_path / "model.so", variant))
    for _ in range(2):
        with pytest.raises(LowgemmError) as caught:
            net({"x": X})
        message = str(caught.value)
        assert message == "kernel fail of layer layer1 failed: ValueError: out of luck"
