"""Embedding bags equal FBGEMM's loops over indices and columns, written out in float32 scalars."""

from typing import Any

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import (
    fma,
    from_bfloat16,
    quantize_rows,
    to_bfloat16,
    unpack_rows,
)
from lowgemm.reference import embedding_bag, remap_indices

F = np.float32
ROWS, COLUMNS = 20, 12
TABLES = ["float32", "float16", "bfloat16", "8/float32", "8/float16", "4/float16", "2/float16"]


def table_of(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """A table and the options that describe it."""
    x = rng.normal(size=(ROWS, COLUMNS)).astype(F)
    if kind == "bfloat16":
        return to_bfloat16(x), {}
    if "/" not in kind:
        return x.astype(kind), {}
    bits, params = kind.split("/")
    return quantize_rows(x, int(bits), params), {"bits": int(bits), "params": params}


def by_hand(table, indices, starts, weights, positional, mean, remap, bits=0, params="", last=True):
    """The loops: bags, their indices, columns."""
    if bits:
        codes, scale, bias = unpack_rows(table, bits, params, last)
    else:
        codes = from_bfloat16(table) if table.dtype == np.uint16 else table.astype(F)
        scale = bias = None
    out = []
    for bag in range(len(starts) - 1):
        total = np.zeros(codes.shape[1], F)
        count = starts[bag + 1] - starts[bag]
        for place in range(count):
            row = indices[starts[bag] + place]
            row = row if remap is None else remap[row]
            if row == -1:
                continue
            weight = F(1)
            if weights is not None:
                weight = weights[place if positional else starts[bag] + place]
            for j in range(codes.shape[1]):
                if scale is None or bias is None:
                    total[j] = fma(weight, codes[row, j], total[j])[()]
                else:
                    beside = F(total[j] + F(weight * bias[row]))
                    total[j] = fma(F(weight * scale[row]), codes[row, j], beside)[()]
        if mean and count:
            total = total * F(F(1) / F(count))
        out.append(total)
    return np.array(out).reshape(-1, codes.shape[1])


# Bags of no index, of one, and of many.
STARTS = np.array([0, 0, 1, 1, 9, 12, 12])


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("weighted", ["no", "each", "positional"])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
def test_every_element_is_that_of_the_loops(kind: str, weighted: str, mean: bool, pruned: bool):
    rng = np.random.default_rng(len(kind))
    table, options = table_of(kind, rng)
    remap = None
    indices = rng.integers(0, ROWS, 12)
    if pruned:  # twice as many original rows as are left
        remap = np.full(2 * ROWS, -1, np.int32)
        remap[rng.permutation(2 * ROWS)[:ROWS]] = np.arange(ROWS)
        indices = rng.integers(0, 2 * ROWS, 12)
    weights = None if weighted == "no" else rng.normal(size=12).astype(F)
    given = {"weights": weights, "positional": weighted == "positional", "mean": mean}
    hand = by_hand(table, indices, STARTS, **given, remap=remap, **options)
    for index_type in (np.int32, np.int64):
        indices = indices.astype(index_type)
        args = {**given, "remap": remap, **options}
        assert (embedding_bag(table, indices, offsets=STARTS, **args) == hand).all()
        found = embedding_bag(table, indices, lengths=np.diff(STARTS), **args)
        assert found.dtype == F
        assert (found == hand).all()
    half = embedding_bag(table, indices, offsets=STARTS, dtype="float16", **args)
    assert (half == hand.astype(np.float16)).all()
    for rounding in ("rne", "half_up"):
        options = {"dtype": "bfloat16", "bfloat16_rounding": rounding}
        narrow = embedding_bag(table, indices, offsets=STARTS, **options, **args)
        assert (narrow == to_bfloat16(hand, rounding)).all()


def test_order_of_the_indices_is_the_order_of_the_sum():
    table = np.array([[1e8], [1], [-1e8]], F)
    bags = np.array([0, 1, 2, 0, 2, 1])
    assert embedding_bag(table, bags, offsets=np.array([0, 3, 6])).tolist() == [[0], [1]]


def test_scale_and_bias_may_come_first():
    rng = np.random.default_rng(0)
    table, options = table_of("4/float16", rng)
    indices = rng.integers(0, ROWS, 12)
    first = np.roll(table, 4, axis=1)
    last = embedding_bag(table, indices, offsets=STARTS, **options)
    found = embedding_bag(first, indices, offsets=STARTS, scale_bias_last=False, **options)
    assert (found == last).all()


def test_without_bags_every_index_gives_its_row():
    table = np.arange(6, dtype=F).reshape(3, 2)
    weights = np.array([1, 10, 100], F)
    found = embedding_bag(table, np.array([2, 0, 2]), weights=weights)
    assert found.tolist() == [[4, 5], [0, 10], [400, 500]]


@pytest.mark.parametrize("weighted", [False, True])
def test_remapped_bags_give_the_same_sums(weighted: bool):
    rng = np.random.default_rng(1)
    table = rng.normal(size=(ROWS, COLUMNS)).astype(F)
    remap = np.full(2 * ROWS, -1, np.int32)
    remap[rng.permutation(2 * ROWS)[:ROWS]] = np.arange(ROWS)
    indices = rng.integers(0, 2 * ROWS, 12)
    weights = rng.normal(size=12).astype(F) if weighted else None
    kept, starts, left = remap_indices(indices, remap, STARTS, weights)
    assert (kept == [remap[i] for i in indices if remap[i] >= 0]).all()
    direct = embedding_bag(table, indices, offsets=STARTS, weights=weights, remap=remap)
    assert (embedding_bag(table, kept, offsets=starts, weights=left) == direct).all()


TABLE = np.zeros((3, 2), F)


@pytest.mark.parametrize(
    ("indices", "options", "message"),
    [
        ([0, 3], {}, "indices: number 1 is 3; expected 0 to 2"),
        ([-1], {}, "indices: number 0 is -1; expected 0 to 2"),
        ([0, 2], {"remap": [0, 1]}, "indices: number 1 is 2; expected 0 to 1"),
        ([1], {"remap": [0, 3]}, "rows of remapped indices: number 0 is 3; expected -1 to 2"),
        ([0, 1], {"offsets": [0, 1]}, "offsets cover indices 0 to 1; expected 0 to 2"),
        ([0, 1], {"offsets": [1, 2]}, "offsets cover indices 1 to 2; expected 0 to 2"),
        ([0, 1], {"offsets": [0, 2, 1, 2]}, "offsets give bag 1 the length -1"),
        ([0, 1], {"lengths": [1, 2]}, "lengths cover indices 0 to 3; expected 0 to 2"),
        ([0], {"lengths": [1], "offsets": [0, 1]}, "offsets and lengths were given; expected one"),
        ([0, 1], {"weights": [1]}, "weights has 1 elements, expected 2"),
        (
            [0, 1],
            {"lengths": [2], "weights": [1], "positional": True},
            "weights has 1 elements, expected 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused(indices, options, message: str):
    given: dict[str, Any] = {
        key: np.array(value) if isinstance(value, list) else value for key, value in options.items()
    }
    with pytest.raises(InputError, match=message):
        embedding_bag(TABLE, np.array(indices), **given)


def test_an_unknown_table_is_refused():
    with pytest.raises(InputError, match="table is float64; expected float32, float16, uint16 or"):
        embedding_bag(np.zeros((2, 2)), np.zeros(1, np.int64))
