"""Several threads inside a product, and several around it."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from lowgemm import ops

from gemm_check import Product, random_output
from isa import isas
from kernels import full_range

DEPTH, COLUMNS = 64, 72


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever a test sets, the next one finds what was before."""
    before = ops.get_num_threads()
    yield
    ops.set_num_threads(before)


def test_number_of_threads(threads: None) -> None:
    for count in (1, 3, 2):
        ops.set_num_threads(count)
        assert ops.get_num_threads() == count
    for wrong in (0, -1, 1.5, "two"):
        with pytest.raises(ops.OperandError, match=r"^threads: expected an integer from 1, got "):
            ops.set_num_threads(wrong)  # pyright: ignore[reportArgumentType]
    assert ops.get_num_threads() == 2


@pytest.mark.parametrize("isa", isas(native=True))
def test_any_number_of_threads_gives_the_same_bytes(isa: str, threads: None) -> None:
    """Few rows are shared by columns, many by rows; none and one are not."""
    rng = np.random.default_rng(5)
    form = ops.Output("uint8", 0.5, 99, row_scale=True, activation="leaky_relu")
    output = random_output(rng, form, COLUMNS, DEPTH)
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), "uint8", 131, 5, output=output)
    packed = product.pack(isa)
    for rows in (0, 1, 40, 217, 600, 2000):
        a = full_range(rng, (rows, DEPTH), "uint8")
        scales = np.exp(rng.normal(0, 1, rows)).astype(np.float32)
        wanted = product.expected(a, row_scale=scales)
        for count in (1, 2, 3):
            ops.set_num_threads(count)
            assert (packed(a, row_scale=scales) == wanted).all()


@pytest.mark.parametrize("isa", isas(native=True))
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "transposed"])
def test_rows_are_shared_in_any_layout(isa: str, transposed: bool, threads: None) -> None:
    """Blocks of rows begin where they must, also in strided and transposed matrices."""
    rng = np.random.default_rng(6)
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), "uint8", 131)
    packed = product.pack(isa)
    rows = 1003
    shape = (DEPTH, rows + 7) if transposed else (rows, DEPTH + 7)
    wide = full_range(rng, shape, "uint8")
    a = wide[:, :rows].T if transposed else wide[:, :DEPTH]
    out = np.zeros((rows, COLUMNS + 5), np.int32)
    ops.set_num_threads(2)
    packed(a, out[:, :COLUMNS])
    assert (out[:, :COLUMNS] == product.expected(a)).all()
    assert (out[:, COLUMNS:] == 0).all()


@pytest.mark.parametrize("isa", isas(native=True))
def test_few_rows_share_columns(isa: str, threads: None) -> None:
    rng = np.random.default_rng(8)
    product = Product(full_range(rng, (512, 1000), "int8"))
    packed = product.pack(isa)
    a = full_range(rng, (5, 512), "uint8")
    for count in (1, 2):
        ops.set_num_threads(count)
        product.check(packed, a)


@pytest.mark.parametrize("isa", isas(native=True))
@pytest.mark.parametrize("inside", [1, 2])
def test_threads_that_call_one_packed_weight(isa: str, inside: int, threads: None) -> None:
    """Eight at once, each with its own numbers of rows, from the very first call on."""
    rng = np.random.default_rng(9)
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), "uint8", 131)
    packed = product.pack(isa)
    ops.set_num_threads(inside)
    every = [
        [full_range(rng, (rows, DEPTH), "uint8") for rows in (1 + 3 * i, 301 + i, 8 * i, 2)]
        for i in range(8)
    ]
    wanted = [[product.expected(a) for a in each] for each in every]
    together = threading.Barrier(8)
    wrong: list[str] = []

    def run(index: int) -> None:
        together.wait()
        for _ in range(5):
            for a, right in zip(every[index], wanted[index], strict=True):
                if not np.array_equal(packed(a), right):
                    wrong.append(f"thread {index}, {len(a)} rows")

    callers = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


@pytest.mark.parametrize("isa", isas(native=True))
def test_threads_that_end_leave_nothing(isa: str, threads: None) -> None:
    """Every caller has its own temporary memory, which goes with it: hundreds of callers do not add up."""
    rng = np.random.default_rng(10)
    # int8 rows of a depth that is no whole number of vectors are copied.
    product = Product(full_range(rng, (DEPTH - 1, COLUMNS), "int8"), "int8")
    packed = product.pack(isa)
    a = full_range(rng, (1500, DEPTH - 1), "int8")
    wanted = product.expected(a)
    ops.set_num_threads(1)

    def run() -> None:
        assert (packed(a) == wanted).all()

    def call_from_new_threads(count: int) -> None:
        for _ in range(count):
            caller = threading.Thread(target=run)
            caller.start()
            caller.join()

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    call_from_new_threads(100)
    before = resident()
    call_from_new_threads(300)
    # A copy is some 60 KiB: kept, they would be 12 to 18 MB.
    assert resident() - before < 4_000_000


@pytest.mark.parametrize("isa", isas(native=True))
def test_a_child_process_computes(isa: str) -> None:
    """After a fork there are no worker threads; the child works alone."""
    rng = np.random.default_rng(12)
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), "uint8", 131)
    packed = product.pack(isa)
    a = full_range(rng, (600, DEPTH), "uint8")
    wanted = product.expected(a)
    assert (packed(a) == wanted).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python knows of the pool's threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends it if it waits for a thread that is not there
        os._exit(0 if (packed(a) == wanted).all() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
