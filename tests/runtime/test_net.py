"""A loaded model: what it refuses, what it computes from any buffer and any thread, and what it leaves behind."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lowgemm
from lowgemm.artifact import Buffer, Plan, Port, build
from lowgemm.errors import InputError

import libraries
from libraries import CONSTANT, SHAPE

X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
Y = X + CONSTANT + CONSTANT


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return libraries.make_library(tmp_path_factory.mktemp("net") / "model.so")


@pytest.fixture
def net(library: Path) -> lowgemm.Net:
    return lowgemm.load(library, threads=2)


def threads_of_this_process() -> int:
    return len(os.listdir("/proc/self/task"))


def offset_by(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy whose data lies `offset` bytes behind a multiple of 64."""
    raw = np.empty(array.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    result = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[:] = array
    return result


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_result(library: Path, threads: int) -> None:
    net = lowgemm.load(library, threads=threads)
    assert net.threads == threads
    result = net({"x": X})["y"]
    assert np.array_equal(result, Y)
    assert result.flags.c_contiguous and result.flags.writeable


def test_ports(net: lowgemm.Net) -> None:
    (source,), (target,) = net.inputs, net.outputs
    assert (source.name, source.dtype, source.shape) == ("x", np.float32, SHAPE)
    assert str(target) == "y: float32[3, 50]"


def test_results_of_two_calls_are_apart(net: lowgemm.Net) -> None:
    first = net({"x": X})["y"]
    net({"x": X + 1})
    assert np.array_equal(first, Y)


@pytest.mark.parametrize(
    "x",
    [
        offset_by(X, 4),
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],
        X[::-1].copy()[::-1],
        np.broadcast_to(X[:1], SHAPE),
        np.frombuffer(X.tobytes(), np.float32).reshape(SHAPE),
        offset_by(X, 1),
    ],
    ids=["unaligned", "fortran", "strided", "reversed", "broadcast", "read-only", "odd"],
)
def test_any_buffer_gives_the_same(net: lowgemm.Net, x: np.ndarray) -> None:
    before = x.copy()
    assert np.array_equal(net({"x": x})["y"], before + CONSTANT + CONSTANT)
    assert np.array_equal(x, before)


def test_names_count_and_not_their_order(tmp_path: Path) -> None:
    """Two independent sums, u = a + c and v = b + c."""
    args = [
        (
            Buffer(SHAPE, "float32", "input", index),
            Buffer(SHAPE, "float32", "constant", 0),
            Buffer(SHAPE, "float32", "output", index),
        )
        for index in range(2)
    ]
    base = libraries.variant(kernels=["add"])
    variant = replace(base, steps=tuple(replace(base.steps[0], args=a) for a in args))
    ports = [Port(name, SHAPE, "float32") for name in "abuv"]
    path = tmp_path / "model.so"
    build(Plan("two", (ports[0], ports[1]), (ports[2], ports[3]), (variant,)), path)
    net = lowgemm.load(path)
    result = net({"b": 2 * X, "a": X})
    assert list(result) == ["u", "v"]
    v, u = np.empty_like(X), np.empty_like(X)
    net.bind({"b": 2 * X, "a": X}, {"v": v, "u": u})()
    for got in (result, {"u": u, "v": v}):
        assert np.array_equal(got["u"], X + CONSTANT)
        assert np.array_equal(got["v"], 2 * X + CONSTANT)


def test_mapping_that_is_no_dict(net: lowgemm.Net, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(net(arrays)["y"], Y)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, ["inputs are x", "given were none"]),
        ({"z": X}, ["inputs are x", "given were z"]),
        ({"x": X, "z": X}, ["given were x, z"]),
        ({"x": X.astype(np.float64)}, ["x: float32[3, 50]", "float64[3, 50]"]),
        ({"x": X.astype(">f4")}, ["x: float32[3, 50]", ">f4[3, 50]"]),
        ({"x": X[:2]}, ["x: float32[3, 50]", "float32[2, 50]"]),
        ({"x": X.reshape(50, 3)}, ["float32[50, 3]"]),
        ({"x": X.tolist()}, ["float64[3, 50]"]),
        (X, ["dict", "ndarray"]),
    ],
    ids=["none", "unknown", "more", "dtype", "endian", "shape", "order", "list", "no dict"],
)
def test_input_that_does_not_fit(net: lowgemm.Net, inputs, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        net(inputs)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert np.array_equal(net({"x": X})["y"], Y)


@pytest.mark.parametrize("threads", [0, -1])
def test_thread_count_that_makes_no_sense(library: Path, threads: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        lowgemm.load(library, threads=threads)


class TestBind:
    """Working on the same arrays at every call."""

    def test_reads_and_writes_in_place(self, net: lowgemm.Net) -> None:
        x, y = X.copy(), np.zeros(SHAPE, np.float32)
        bound = net.bind({"x": x}, {"y": y})
        for change in (0, 1, 2):
            x[:] = X + change
            assert bound()["y"] is y
            assert np.array_equal(y, x + CONSTANT + CONSTANT)

    def test_makes_outputs(self, net: lowgemm.Net) -> None:
        bound = net.bind({"x": X})
        assert np.array_equal(bound()["y"], Y)
        assert bound()["y"] is bound.outputs["y"]

    def test_unaligned(self, net: lowgemm.Net) -> None:
        y = offset_by(np.zeros(SHAPE, np.float32), 4)
        net.bind({"x": offset_by(X, 8)}, {"y": y})()
        assert np.array_equal(y, Y)

    def test_keeps_what_it_needs_alive(self, library: Path) -> None:
        bound = lowgemm.load(library, threads=2).bind({"x": X.copy()})
        gc.collect()
        assert np.array_equal(bound()["y"], Y)

    @pytest.mark.parametrize(
        ("inputs", "outputs", "words"),
        [
            ({"x": X.tolist()}, None, ["input x", "C-contiguous"]),
            ({"x": np.asfortranarray(X)}, None, ["input x", "C-contiguous"]),
            ({"x": X.astype(np.int8)}, None, ["input x", "int8[3, 50]"]),
            ({"z": X}, None, ["inputs are x"]),
            ({"x": X}, {"z": X}, ["outputs are y"]),
            ({"x": X}, {"y": X}, ["output y", "shares memory"]),
            ({"x": X}, {"y": np.zeros((3, 51), np.float32)[:, :50]}, ["output y", "C-contiguous"]),
            ({"x": X}, {"y": np.frombuffer(X.tobytes(), np.float32).reshape(SHAPE)}, ["read-only"]),
        ],
        ids=["list", "order", "dtype", "name", "output", "shared", "strided", "read-only"],
    )
    def test_refuses(self, net: lowgemm.Net, inputs, outputs, words: list[str]) -> None:
        with pytest.raises(InputError) as caught:
            net.bind(inputs, outputs)
        for word in words:
            assert word in str(caught.value)


def test_threads_on_one_net(net: lowgemm.Net) -> None:
    def call(number: int) -> bool:
        x = X + number
        return all(np.array_equal(net({"x": x})["y"], x + CONSTANT + CONSTANT) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


def test_threads_on_nets_of_their_own(library: Path) -> None:
    def call(number: int) -> bool:
        own, x = lowgemm.load(library, threads=1 + number % 3), X + number
        return all(np.array_equal(own({"x": x})["y"], x + CONSTANT + CONSTANT) for _ in range(100))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


def test_nothing_runs_on_after_a_net(library: Path) -> None:
    gc.collect()
    before = threads_of_this_process()
    net = lowgemm.load(library, threads=3)
    bound = [net.bind({"x": X}), net.bind({"x": X})]  # each on a context of its own
    assert threads_of_this_process() == before + 2 * 2
    del net, bound
    gc.collect()
    assert threads_of_this_process() == before


def test_child_after_fork(net: lowgemm.Net) -> None:
    assert np.array_equal(net({"x": X})["y"], Y)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            right = np.array_equal(net({"x": X})["y"], Y)
            status = 0 if right and threads_of_this_process() == 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(net({"x": X})["y"], Y)


def test_profile(net: lowgemm.Net) -> None:
    steps = net.profile({"x": X}, repeat=3)
    assert [(s["layer"], s["kernel"], s["shape"], s["macs"]) for s in steps] == [
        ("layer0", "add", X.shape, 150),
        ("layer1", "shared", X.shape, 150),
    ]
    assert all(0 < s["seconds"] < 1 for s in steps)


def test_a_bound_net_tells_the_time_of_each_step(net: lowgemm.Net) -> None:
    bound = net.bind({"x": X})
    seconds = bound.step_seconds()
    assert len(seconds) == 2 and all(0 < s < 1 for s in seconds)
    assert np.array_equal(bound.outputs["y"], Y)


def test_manifest(net: lowgemm.Net) -> None:
    manifest = net.manifest
    assert manifest["name"] == "test"
    assert manifest["inputs"] == [{"name": "x", "shape": list(SHAPE), "dtype": "float32"}]
    assert [v["level"] for v in manifest["variants"]] == ["avx2"]
