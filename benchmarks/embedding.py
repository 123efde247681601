"""Embedding bags: lowgemm beside FBGEMM inside PyTorch, on the shapes of FBGEMM's benchmarks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np

from lowgemm import reference
from lowgemm.bench.compare import Contestant, Work, compare, distance
from lowgemm.bench.host import Setting
from lowgemm.bench.record import LOWGEMM, Row
from lowgemm.errors import BenchError

PEERS = ("fbgemm",)
_BAGS, _LENGTH = 10, 100
# FBGEMM's benchmarks have 4 million rows: 4 GB of 1024 columns. Half a gigabyte is many times every cache, too.
_ROWS, _MOST_BYTES = 4_000_000, 1 << 29
# FBGEMM's columns of 8-bit tables, and of 4-bit ones.
_COLUMNS: dict[Literal[8, 4], tuple[int, ...]] = {
    8: (32, 64, 128, 256, 512, 1024),
    4: (32, 64, 128, 256),
}
_PARAMS = {8: "float32", 4: "float16"}
_SEED = 0
# Sums of some hundred terms in float32, in any order; wrong ones are off by the size of a term.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Bags:
    """Sums of `_LENGTH` rows on average, for `_BAGS` bags, of a table of `bits` with `columns`."""

    bits: Literal[8, 4]
    columns: int
    weighted: bool

    @property
    def row_bytes(self) -> int:
        """Codes, scale and bias."""
        return self.columns * self.bits // 8 + 2 * np.dtype(_PARAMS[self.bits]).itemsize

    @property
    def rows(self) -> int:
        return min(_ROWS, _MOST_BYTES // self.row_bytes)

    @property
    def shape(self) -> str:
        weights = " weighted" if self.weighted else ""
        return f"{_BAGS}x{_LENGTH} of {self.rows}x{self.columns}{weights}"

    @property
    def fields(self) -> dict[str, str]:
        """Of its row."""
        name, dtype = f"embedding_int{self.bits}", f"int{self.bits} rows"
        return {"name": name, "shape": self.shape, "dtype": dtype}

    @cached_property
    def data(self) -> dict[str, np.ndarray | None]:
        """table uint8, indices int64, offsets int64 `(bags + 1,)`, and weights float32 or None."""
        generator = np.random.default_rng(_SEED)
        kind = np.dtype(_PARAMS[self.bits])
        table = np.frombuffer(generator.bytes(self.rows * self.row_bytes), np.uint8)
        table = table.reshape(self.rows, self.row_bytes).copy()
        params = generator.uniform(0.5, 1, (self.rows, 2)) * (1 / 256, -0.5)
        table[:, -2 * kind.itemsize :] = params.astype(kind).view(np.uint8)
        # Lengths from 0 to twice the average, as FBGEMM draws them.
        lengths = generator.integers(0, 2 * _LENGTH + 1, _BAGS)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        indices = generator.integers(0, self.rows, offsets[-1])
        weights = generator.uniform(0, 1, offsets[-1]).astype(np.float32)
        return {
            "table": table,
            "indices": indices,
            "offsets": offsets,
            "weights": weights if self.weighted else None,
        }

    @property
    def moved(self) -> int:
        """Bytes of the rows that are summed, and of the sums."""
        indices = self.data["indices"]
        assert indices is not None
        return indices.size * (self.row_bytes + 8) + _BAGS * self.columns * 4


def tables() -> Iterator[Bags]:
    """All that is measured."""
    for bits, columns in _COLUMNS.items():
        for count, weighted in itertools.product(columns, (False, True)):
            yield Bags(bits, count, weighted)


def measure(bags: Bags, against: Sequence[str], setting: Setting) -> Row:
    """One row."""
    data = bags.data
    table, indices = data["table"], data["indices"]
    assert table is not None and indices is not None
    # The reference is slow on large tables: it gets the rows that are summed.
    expected = reference.embedding_bag(
        table[indices],
        np.arange(indices.size),
        offsets=data["offsets"],
        weights=data["weights"],
        bits=bags.bits,
    )
    makers = {name: partial(_make, name, bags, setting.threads) for name in (LOWGEMM, *against)}
    work = Work(
        name=bags.fields["name"],
        shape=bags.shape,
        dtype=bags.fields["dtype"],
        macs=indices.size * bags.columns,
        moved=bags.moved,
        peak="fma_gops",
    )

    def check(name: str, found: np.ndarray) -> tuple[float, bool]:
        error = distance(found, expected)
        return error, error <= _TOLERANCE

    return compare(work, makers, check, setting)


def _make(name: str, bags: Bags, threads: int) -> Contestant:
    if name == LOWGEMM:
        return _lowgemm(bags, threads)
    try:
        from benchmarks import torch_floats
    except ModuleNotFoundError as error:
        raise BenchError(f"{error.name} is not installed") from error
    data = bags.data
    table, indices, offsets = data["table"], data["indices"], data["offsets"]
    assert table is not None and indices is not None and offsets is not None
    return torch_floats.TorchBags(table, indices, offsets, data["weights"], bags.bits, threads)


def _lowgemm(bags: Bags, threads: int) -> Contestant:
    """`lowgemm.ops.embedding_bag`."""
    from benchmarks.native_loops import Operator
    from lowgemm import ops

    ops.set_num_threads(threads)
    out = np.empty((_BAGS, bags.columns), np.float32)
    return Operator(partial(ops.embedding_bag, **bags.data, bits=bags.bits, out=out), out)
