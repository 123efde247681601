"""FBGEMM's tests of embedding bags (EmbeddingSpMDM*Test, RowWiseSparse), against the oracle with ==.

Every kind of rows with every kind of weights, of means, of indices and of offsets, by turns; with pruned tables and
without. Of FBGEMM's corner cases, no indices give zeros, and what it answers by `false` (OUT_OF_BOUND_INDICES,
UNMATCHED_NUM_INDICES_AND_LENGTHS_SUM) is an error that names the argument, with nothing read where it must not be.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lowgemm import ops, quant, reference

import fences
from isa import isas

F = np.float32
ROWS, LONGEST = 120, 30
# kind of rows: its columns, and how the oracle and the operator are told
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "float32": (17, {}),
    "float16": (64, {}),
    "bfloat16": (9, {}),
    "8 bits": (32, {"bits": 8}),
    "8 bits, float16": (12, {"bits": 8, "params": "float16"}),
    "4 bits": (40, {"bits": 4}),
    "2 bits": (20, {"bits": 2}),
}


def table_of(rng: np.random.Generator, kind: str, rows: int) -> np.ndarray:
    columns, form = KINDS[kind]
    x = rng.normal(0, 2, (rows, columns)).astype(F)
    if kind == "bfloat16":
        return quant.to_bfloat16(x)
    if not form:
        return x.astype(kind)
    return quant.quantize_rows(
        x, form["bits"], form.get("params", "float32" if form["bits"] == 8 else "float16")
    )


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
def test_bags(isa: str, kind: str, conformance) -> None:
    rng = np.random.default_rng(len(kind))
    for number, (batch, indexed) in enumerate(itertools.product((1, 10, 40), ("int32", "int64"))):
        lengths = rng.integers(0, LONGEST, batch).astype(indexed)
        count = int(lengths.sum())
        options: dict[str, Any] = {**KINDS[kind][1], "mean": number % 3 == 1}
        rows = ROWS
        if number % 2:
            options["weights"] = rng.normal(size=LONGEST if number == 3 else count).astype(F)
            options["positional"] = number == 3
        if number >= 4:
            options["remap"] = np.full(ROWS, -1, np.int32)
            options["remap"][::2] = np.arange(rows := ROWS // 2)
        table = table_of(rng, kind, rows)
        indices = rng.integers(0, ROWS, count).astype(indexed)
        given = {"lengths": lengths}
        if number % 2 == 0:
            given = {"offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(indexed)}
        wanted = reference.embedding_bag(table, indices, **given, **options)
        found = ops.embedding_bag(table, indices, **given, **options, target=isa)
        assert found.tobytes() == wanted.tobytes()
        conformance("embedding_bag", isa)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", KINDS)
def test_corner_cases(isa: str, kind: str, conformance) -> None:
    rng = np.random.default_rng(len(kind))
    columns, options = KINDS[kind]
    table = fences.before_fence(table_of(rng, kind, ROWS))
    none = np.zeros(0, np.int64)
    empty = ops.embedding_bag(table, none, lengths=np.zeros(5, np.int32), target=isa, **options)
    assert_array_equal(empty, np.zeros((5, columns), F))
    indices = rng.integers(0, ROWS, 9)
    for bad in (-1, ROWS, 2**40):
        wrong = indices.copy()
        wrong[7] = bad
        with pytest.raises(ops.OperandError, match=rf"^indices: .* got {bad} at position 7$"):
            ops.embedding_bag(table, wrong, lengths=np.array([4, 5]), target=isa, **options)
    for lengths in ((4, 4), (4, 6), (4, -1, 6)):
        with pytest.raises(ops.OperandError, match=r"^lengths: expected (to cover|no negative)"):
            ops.embedding_bag(table, indices, lengths=np.array(lengths), target=isa, **options)
    conformance("embedding_bag corner cases", isa, 7)
