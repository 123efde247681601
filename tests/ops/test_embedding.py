"""Embedding bags equal the oracle bit for bit; a bad index is named and never read."""

import mmap
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lowgemm import ops, quant, reference
from lowgemm.ops import OperandError
from lowgemm.targets import LEVELS

import fences
from isa import isas

F = np.float32
ROWS = 50
# Linux's MAP_NORESERVE, which Python's mmap does not name: no swap is set aside.
_NO_RESERVE = 0x4000
# table -> what `reference` is told of it
TABLES: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {},
    "bfloat16": {},
    "8/float32": {"bits": 8},
    "8/float16": {"bits": 8, "params": "float16"},
    "4/float16": {"bits": 4},
    "2/float16": {"bits": 2},
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def table_of(rng, kind: str, columns: int, rows: int = ROWS) -> np.ndarray:
    """Of a kind of `TABLES`; bfloat16 as its bits."""
    x = rng.normal(0, 2, (rows, columns)).astype(F)
    if kind == "bfloat16":
        return quant.to_bfloat16(x)
    if "/" not in kind:
        return x.astype(kind)
    bits, params = kind.split("/")
    return quant.quantize_rows(x, int(bits), params)


def bags_of(rng, kind: str = "int64", rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Indices and offsets: empty bags at both ends and between, a long one, single ones."""
    lengths = np.array([0, 3, 1, 0, 0, 40, 2, 1, 0], kind)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(kind)
    return rng.integers(0, rows, offsets[-1]).astype(kind), offsets


def check(table: np.ndarray, indices: np.ndarray, isa: str, **options: Any) -> None:
    """That the operator gives what the oracle does, with all arrays at fences."""
    want = reference.embedding_bag(table, indices, **options)
    names = [name for name, value in options.items() if isinstance(value, np.ndarray)]
    for copies in fences.fenced(table, indices, want, *(options[name] for name in names)):
        at, listed, out, *rest = copies
        given: dict[str, Any] = {**options, **dict(zip(names, rest, strict=True))}
        if options.get("dtype") == "bfloat16":
            out = out.view(ml_dtypes.bfloat16)
        assert ops.embedding_bag(at, listed, out=out, target=isa, **given) is out
        assert out.tobytes() == want.tobytes(), options


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", TABLES)
def test_tables(rng, isa: str, kind: str) -> None:
    indices, offsets = bags_of(rng)
    check(table_of(rng, kind, 36), indices, isa, offsets=offsets, **TABLES[kind])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("kind", "columns"),
    [("8/float32", 1), ("8/float32", 9), ("4/float16", 2), ("2/float16", 4), ("2/float16", 64)],
)
def test_columns(rng, isa: str, kind: str, columns: int) -> None:
    """Rows shorter than a vector, of whole vectors, and of vectors that overlap."""
    indices, offsets = bags_of(rng)
    check(table_of(rng, kind, columns), indices, isa, offsets=offsets, **TABLES[kind])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", ["float32", "2/float16"])
def test_rows_longer_than_the_registers(rng, isa: str, kind: str) -> None:
    """Several passes over a bag, the last of which overlaps the one before it."""
    registers = LEVELS[isa].registers * LEVELS[isa].lanes
    for columns in (registers + 4, 3 * registers):
        indices, offsets = bags_of(rng)
        table = table_of(rng, kind, columns)
        weights = rng.normal(size=indices.size).astype(F)
        check(table, indices, isa, offsets=offsets, weights=weights, **TABLES[kind])


REMAP = np.full(ROWS, -1, np.int32)
REMAP[::3] = np.arange(len(REMAP[::3]))
OPTIONS = {
    "mean": {"mean": True},
    "weighted": {"weights": "index"},
    "weighted mean": {"weights": "index", "mean": True},
    "positional": {"weights": "position"},
    "weighted codes": {"weights": "index"},
    "pruned": {"remap": REMAP},
    "pruned weighted mean": {"remap": REMAP, "weights": "index", "mean": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16 as FBGEMM": {"dtype": "bfloat16", "bfloat16_rounding": "half_up"},
    "float16": {"dtype": "float16"},
}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", OPTIONS)
def test_options(rng, isa: str, name: str) -> None:
    # Rows of floats and of codes take turns, as do the types of indices.
    turn = list(OPTIONS).index(name) % 2
    kind = ("bfloat16", "4/float16")[turn]
    options = {**TABLES[kind], **OPTIONS[name]}
    indices, offsets = bags_of(rng, ("int32", "int64")[turn])
    place = options.pop("weights", None)
    if place:
        count = indices.size if place == "index" else int(np.diff(offsets).max())
        options["weights"] = rng.normal(size=count).astype(F)
        options["positional"] = place == "position"
    rows = int(REMAP.max()) + 1 if "remap" in options else ROWS
    check(table_of(rng, kind, 20, rows), indices, isa, offsets=offsets, **options)


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_offsets_lengths_and_neither(rng, isa: str) -> None:
    table = table_of(rng, "float32", 16)
    indices, offsets = bags_of(rng)
    want = reference.embedding_bag(table, indices, offsets=offsets)
    for kind in ("int32", "int64"):
        lengths = np.diff(offsets).astype(kind)
        got = ops.embedding_bag(table, indices, lengths=lengths, target=isa)
        assert got.tobytes() == want.tobytes()
    small = offsets.astype(np.int32)
    assert ops.embedding_bag(table, indices, offsets=small, target=isa).tobytes() == want.tobytes()
    assert np.array_equal(ops.embedding_bag(table, indices, target=isa), table[indices])


def test_a_table_of_more_than_four_gigabytes() -> None:
    """Of which all but three rows were never written, and take no memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    rows = 60_000_000
    with mmap.mmap(-1, rows * 72, flags=flags) as memory:
        table = np.frombuffer(memory, np.uint8).reshape(rows, 72)
        far = [0, 30_000_001, rows - 1]
        table[far] = quant.quantize_rows(np.arange(192, dtype=F).reshape(3, 64))
        want = quant.dequantize_rows(table[far])
        got = ops.embedding_bag(table, np.array(far))
        assert np.array_equal(got, want)
        del table


def test_nothing_to_sum(rng) -> None:
    table = table_of(rng, "float32", 16)
    none = np.zeros(0, np.int64)
    zero = np.zeros(1, np.int64)
    assert ops.embedding_bag(table, none, offsets=zero).shape == (0, 16)
    assert ops.embedding_bag(table, none).shape == (0, 16)
    bags = ops.embedding_bag(table[:0], none, lengths=np.zeros(3, np.int64), mean=True)
    assert np.array_equal(bags, np.zeros((3, 16), F))
    empty = np.zeros(0, np.int32)
    assert not ops.embedding_bag(table, none, lengths=zero, remap=empty).any()


def test_scale_and_bias_first(rng) -> None:
    table = table_of(rng, "4/float16", 24)
    indices, offsets = bags_of(rng)
    want = ops.embedding_bag(table, indices, offsets=offsets, bits=4)
    turned = np.roll(table, 4, axis=1)
    got = ops.embedding_bag(turned, indices, offsets=offsets, bits=4, scale_bias_last=False)
    assert got.tobytes() == want.tobytes()


def test_threads_give_the_same(rng) -> None:
    table = table_of(rng, "8/float32", 64)
    offsets = np.arange(0, 4001, 8)
    indices = rng.integers(0, ROWS, offsets[-1])
    before = ops.get_num_threads()
    found = set()
    try:
        for threads in (1, 2, 5):
            ops.set_num_threads(threads)
            found.add(ops.embedding_bag(table, indices, offsets=offsets).tobytes())
    finally:
        ops.set_num_threads(before)
    assert found == {reference.embedding_bag(table, indices, offsets=offsets).tobytes()}


def test_several_threads_call_at_once(rng) -> None:
    """Each with sizes of its own: what a thread has described is its own."""
    table = table_of(rng, "8/float32", 32)
    jobs = [rng.integers(0, ROWS, (bags, 7)) for bags in (1, 5, 40, 300)]
    wrong = []

    def work(job: np.ndarray) -> None:
        offsets = np.arange(len(job) + 1) * 7
        want = reference.embedding_bag(table, job.ravel(), offsets=offsets).tobytes()
        for _ in range(50):
            if ops.embedding_bag(table, job.ravel(), offsets=offsets).tobytes() != want:
                wrong.append(len(job))

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("bad", [-1, ROWS, 2**31 - 1, -(2**31), 2**62])
def test_an_index_out_of_range_is_named(rng, isa: str, bad: int) -> None:
    table = fences.before_fence(table_of(rng, "8/float32", 64))
    kind = np.int64 if bad == 2**62 else np.int32
    indices, offsets = bags_of(rng, "int32")
    indices = indices.astype(kind)
    for position in (0, 3, indices.size - 1):
        wrong = indices.copy()
        wrong[position] = bad
        message = rf"^indices: expected 0 to 49, got {bad} at position {position}$"
        with pytest.raises(OperandError, match=message):
            ops.embedding_bag(table, wrong, offsets=offsets, target=isa)
    # The next call is as good as ever.
    want = reference.embedding_bag(table, indices, offsets=offsets)
    got = ops.embedding_bag(table, indices, offsets=offsets, target=isa)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("isa", isas())
def test_offsets_out_of_range_are_not_followed(rng, isa: str) -> None:
    """An index that they lead to is not read, on either side of the indices."""
    table = table_of(rng, "float32", 16)
    indices, _ = bags_of(rng)
    for fenced, far in ((fences.before_fence, 2**20), (fences.behind_fence, -(2**20))):
        offsets = np.array([0, far, far + 1, indices.size])
        with pytest.raises(OperandError, match=r"^offsets: expected no negative lengths"):
            ops.embedding_bag(table, fenced(indices), offsets=offsets, target=isa)
    offsets = np.array([0, 5, 2**20])
    with pytest.raises(OperandError, match=r"^offsets: expected to cover indices"):
        ops.embedding_bag(table, fences.before_fence(indices), offsets=offsets, target=isa)


TABLE = np.zeros((10, 6), F)
INDICES = np.zeros(4, np.int64)
OFFSETS = np.array([0, 1, 4])
WEIGHTS = np.ones(3, F)
REFUSED = {
    "negative length": (
        {"offsets": np.array([0, 3, 2, 4])},
        "offsets: expected no negative lengths, got -1 of bag 1",
    ),
    "lengths": (
        {"lengths": np.array([3, -1, 2])},
        "lengths: expected no negative lengths, got -1 of bag 1",
    ),
    "end": (
        {"offsets": np.array([0, 1, 3])},
        "offsets: expected to cover indices 0 to 4, got 0 to 3",
    ),
    "beyond the end": (
        {"offsets": np.array([0, 1, 400])},
        "offsets: expected to cover indices 0 to 4, got 0 to 400",
    ),
    "begin": (
        {"offsets": np.array([1, 2, 4])},
        "offsets: expected to cover indices 0 to 4, got 1 to 4",
    ),
    "sum of lengths": (
        {"lengths": np.array([1, 2])},
        "lengths: expected to cover indices 0 to 4, got 0 to 3",
    ),
    "lengths whose sum wraps": (
        {"lengths": np.array([2, 2**63 - 1, 2**63 - 1, 4])},
        "lengths: expected at most 4 of a bag, got 9223372036854775807 of bag 1",
    ),
    "place without weights": (
        {"positional": True},
        "positional: expected weights that it says something of",
    ),
    "no offsets": (
        {"offsets": np.zeros(0, np.int64)},
        "offsets: expected bags + 1 of them, from 0 to 4, got none",
    ),
    "both": (
        {"offsets": OFFSETS, "lengths": np.array([1, 3])},
        "offsets, lengths: expected one of them",
    ),
    "weights": (
        {"offsets": OFFSETS, "weights": WEIGHTS},
        "weights: expected one for each of 4 indices, got 3",
    ),
    "positional weights": (
        {"offsets": OFFSETS, "weights": WEIGHTS[:2], "positional": True},
        "weights: expected one for each of 3 places, got 2",
    ),
    "short remap": (
        {"offsets": OFFSETS, "remap": np.zeros(0, np.int32)},
        "indices: expected 0 to -1, got 0 at position 0",
    ),
    "remap": (
        {"offsets": OFFSETS, "remap": np.array([10], np.int32)},
        "remap: expected -1 to 9, got 10 for index 0 at position 0",
    ),
    "negative remap": (
        {"offsets": OFFSETS, "remap": np.array([-2], np.int32)},
        "remap: expected -1 to 9, got -2 for index 0 at position 0",
    ),
    "remap behind a pruned row": (
        {"indices": np.array([0, 1, 1, 0]), "remap": np.array([-1, 10], np.int32)},
        "remap: expected -1 to 9, got 10 for index 1 at position 1",
    ),
    "dtype of the result": (
        {"dtype": "float64"},
        "dtype: expected one of float32, float16, bfloat16, got float64",
    ),
    "rounding": (
        {"bfloat16_rounding": "up"},
        "bfloat16_rounding: expected one of rne, half_up, got up",
    ),
    "dtype of offsets": (
        {"offsets": OFFSETS.astype(np.int16)},
        "offsets: expected int64 or int32, got int16 of shape (3,)",
    ),
    "axes of indices": (
        {"indices": INDICES.reshape(2, 2)},
        "indices: expected one axis, got shape (2, 2)",
    ),
    "dtype of indices": (
        {"indices": INDICES.astype(np.uint64)},
        "indices: expected int64 or int32, got uint64 of shape (4,)",
    ),
    "dtype of the table": (
        {"table": TABLE.astype(np.int8)},
        "table: expected uint8 or float32 or float16 or uint16 or bfloat16, got int8 of shape (10, 6)",
    ),
    "axes of the table": (
        {"table": TABLE[0]},
        "table: expected shape (rows, columns), got shape (6,)",
    ),
    "columns of the table": (
        {"table": TABLE[:, :0].copy()},
        "table: expected rows with elements, got none",
    ),
    "layout of the table": (
        {"table": TABLE[:, ::2]},
        "table: expected a C-contiguous array, got strides (24, 8)",
    ),
    "rows of codes": (
        {"table": TABLE.astype(np.uint8)},
        "table: expected rows of more than 8 bytes, got 6",
    ),
    "bits": (
        {"table": TABLE.astype(np.uint8), "bits": 3},
        "bits: expected one of 8, 4, 2, got 3",
    ),
    "shape of out": (
        {"out": np.zeros((2, 6), F)},
        "out: expected float32 of shape (4, 6), got float32 of shape (2, 6)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_named(name: str) -> None:
    options, message = REFUSED[name]
    arguments: dict[str, Any] = {"table": TABLE, "indices": INDICES, **options}
    with pytest.raises(OperandError) as caught:
        ops.embedding_bag(**arguments)
    assert str(caught.value) == message
