"""FBGEMM's tests of products of floats and of 64-bit integers (test/FP16Test.cc, FP32Test.cc, I64Test.cc), with ==.

Shapes are drawn as there. Floats are integers from 0 to 4, so that every order of summation is exact.
"""

import numpy as np
import pytest

from lowgemm import ops, reference

from isa import isas
from kernels import full_range

# FBGEMM draws more; each of these is run with both factors of what is there before.
FLOAT_SHAPES = 12
INT64_SHAPES = 256


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("weights", ["float16", "float32"])
def test_float_products(weights: str, isa: str, conformance) -> None:
    rng = np.random.default_rng(13)
    fixed = [(1, 1, 1), (1, 128, 512), (120, 48, 1024)]
    drawn = rng.integers(1, (257, 1025, 1025), (FLOAT_SHAPES, 3)).tolist()
    for number, (rows, columns, depth) in enumerate([*fixed, *drawn]):
        a, b = (rng.integers(0, 5, s).astype(np.float64) for s in ((rows, depth), (depth, columns)))
        exact = a @ b
        before = rng.integers(0, 5, (rows, columns)).astype(np.float32)
        transposed = number % 2 == 1
        held = (b.T if transposed else b).astype(np.float32)
        packed = ops.pack_float_gemm(held, weights=weights, transposed=transposed, target=isa)
        for beta in (0.0, 1.0):
            out = before.copy()
            packed(a.astype(np.float32), out, beta=beta)
            np.testing.assert_array_equal(out, exact + beta * before)
    conformance(f"float_gemm {weights}", isa, 2 * (FLOAT_SHAPES + len(fixed)))


@pytest.mark.parametrize("isa", isas())
def test_int64_products(isa: str, conformance) -> None:
    rng = np.random.default_rng(14)
    for number in range(INT64_SHAPES):
        rows, columns, depth = (int(n) for n in rng.integers(1, 129, 3))
        a, b = full_range(rng, (rows, depth), "int64"), full_range(rng, (depth, columns), "int64")
        before = full_range(rng, (rows, columns), "int64")
        turned_a, turned_b, accumulate = (bool(number >> bit & 1) for bit in range(3))
        packed = ops.pack_gemm_i64(
            np.ascontiguousarray(b.T) if turned_b else b, transposed=turned_b, target=isa
        )
        out = before.copy()
        packed(np.asfortranarray(a) if turned_a else a, out, accumulate=accumulate)
        expected = reference.gemm_i64(a, b, before if accumulate else None)
        np.testing.assert_array_equal(out, expected)
    conformance("gemm_i64", isa, INT64_SHAPES)
