"""Products of 64-bit integers, which wrap."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lowgemm import ops, reference, targets

from fences import fenced
from isa import isas
from kernels import full_range

INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize("isa", isas())
def test_products_wrap(isa: str) -> None:
    """Rows of one tile and of several, and columns that fill no panel or some. More: tests/conformance."""
    rng = np.random.default_rng(1)
    for rows, columns, depth in ((1, 1, 1), (2, 7, 3), (3, 16, 20), (7, 33, 9), (40, 130, 65)):
        a, b = full_range(rng, (rows, depth), "int64"), full_range(rng, (depth, columns), "int64")
        packed = ops.pack_gemm_i64(b, target=isa)
        expected = reference.gemm_i64(a, b)
        assert (packed(a) == expected).all()
        assert (packed(np.asfortranarray(a)) == expected).all()
        assert (ops.pack_gemm_i64(b.T, transposed=True, target=isa)(a) == expected).all()
        out = full_range(rng, expected.shape, "int64")
        plus = out.copy()
        assert packed(a, out, accumulate=True) is out
        assert (out == reference.gemm_i64(a, b, plus)).all()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("value", [INT64.min, INT64.max, -1, 1 << 31, 1 << 32, (1 << 32) - 1])
def test_halves_are_put_together(value: int, isa: str) -> None:
    """Numbers at the borders of 32 bits, and at those of 64."""
    borders = np.array(
        [INT64.min, INT64.max, -1, 0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, -(1 << 32)]
    )
    a = np.full((3, 9), value)
    b = np.diag(borders)
    assert (ops.pack_gemm_i64(b, target=isa)(a) == reference.gemm_i64(a, b)).all()
    sums = np.tile(borders, (9, 1))
    assert (ops.pack_gemm_i64(sums, target=isa)(a) == reference.gemm_i64(a, sums)).all()


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_matrices_may_be_parts_of_others(isa: str) -> None:
    rng = np.random.default_rng(2)
    b = full_range(rng, (12, 21), "int64")
    packed = ops.pack_gemm_i64(b, target=isa)
    a = full_range(rng, (3, 14, 24), "int64")[:, ::2, ::-2]
    expected = np.stack([reference.gemm_i64(x, b) for x in a])
    assert (packed(a) == expected).all()
    out = full_range(rng, (3, 7, 30), "int64")
    before = out.copy()
    packed(a, out[..., 4:25])
    assert (out[..., 4:25] == expected).all()
    assert (out[..., :4] == before[..., :4]).all() and (out[..., 25:] == before[..., 25:]).all()
    assert (packed(np.broadcast_to(a[0, :1], (5, 12))) == expected[0, :1]).all()
    assert packed(a[:, :0]).shape == (3, 0, 21)


@pytest.mark.isa("avx2")
@pytest.mark.parametrize("extra", [(), ("avx512dq",)], ids=["halves", "whole"])
def test_tiles_of_wide_vectors(extra: tuple[str, ...]) -> None:
    """Those of AVX-512, whose instructions LLVM makes of others, so that any CPU runs them."""
    avx2 = targets.LEVELS["avx2"]
    features = (*avx2.features, *extra)
    target = replace(avx2, vector_bits=512, registers=32, features=features)
    rng = np.random.default_rng(5)
    b = full_range(rng, (40, 75), "int64")
    packed = ops.pack_gemm_i64(b, target=target)
    for rows in (1, 2, 3, 6, 7, 100):
        a = full_range(rng, (rows, 40), "int64")
        assert (packed(a) == reference.gemm_i64(a, b)).all()


def test_nothing_is_read_or_written_past_an_end() -> None:
    rng = np.random.default_rng(3)
    b = full_range(rng, (5, 11), "int64")
    packed = ops.pack_gemm_i64(b)
    for rows in (1, 3, 40):
        a = full_range(rng, (rows, 5), "int64")
        for inside, out in fenced(a, np.zeros((rows, 11), np.int64)):
            packed(inside, out)
            assert (packed(inside, out, accumulate=True) == 2 * reference.gemm_i64(a, b)).all()


@pytest.mark.parametrize("isa", isas())
def test_threads(isa: str) -> None:
    rng = np.random.default_rng(4)
    b = full_range(rng, (90, 130), "int64")
    packed = ops.pack_gemm_i64(b, target=isa)
    inputs = [full_range(rng, (rows, 90), "int64") for rows in (1, 30, 300)]
    expected = [reference.gemm_i64(a, b) for a in inputs]
    before = ops.get_num_threads()
    try:
        for count in (1, 3):
            ops.set_num_threads(count)
            wrong = []

            def call(index: int, wrong: list = wrong) -> None:
                for _ in range(10):
                    if not (packed(inputs[index]) == expected[index]).all():
                        wrong.append(index)

            callers = [threading.Thread(target=call, args=(i % 3,)) for i in range(6)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
            assert not wrong
    finally:
        ops.set_num_threads(before)


def test_bound_arrays_are_read_anew() -> None:
    b = np.arange(6).reshape(2, 3)
    a, out = np.zeros((1, 2), np.int64), np.ones((1, 3), np.int64)
    run = ops.pack_gemm_i64(b).bind(a, out, accumulate=True)
    run()
    assert out.tolist() == [[1, 1, 1]]
    a[...] = 1
    run()
    run()
    assert out.tolist() == [[7, 11, 15]]


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.zeros((2, 3), np.int32), "b: expected int64, got int32 of shape (2, 3)"),
        (
            np.zeros((0, 3), np.int64),
            "b: expected two axes of at least one element, got shape (0, 3)",
        ),
        (np.zeros(3, np.int64), "b: expected two axes of at least one element, got shape (3,)"),
    ],
)
def test_what_cannot_be_packed_is_named(b: np.ndarray, message: str) -> None:
    with pytest.raises(ops.OperandError) as caught:
        ops.pack_gemm_i64(b)
    assert str(caught.value) == message


A = np.zeros((2, 4), np.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": A[:, 1:]}, "a: expected int64 of shape (..., rows, 4), got int64 of shape (2, 3)"),
        (
            {"a": A.astype(np.uint64)},
            "a: expected int64 of shape (..., rows, 4), got uint64 of shape (2, 4)",
        ),
        ({"a": A, "out": A}, "out: expected int64 of shape (2, 3), got int64 of shape (2, 4)"),
        ({"a": A, "accumulate": True}, "out: expected the array to add to"),
    ],
)
def test_what_cannot_be_multiplied_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ops.OperandError) as caught:
        ops.pack_gemm_i64(np.zeros((4, 3), np.int64))(**arguments)
    assert str(caught.value) == message
