"""FBGEMM's tests of products with sparse weights, against the oracle with ==.

They are those of blocks of int8 and of float32 rows, which draw sizes up to 32 and take depths at the borders of its
tiles, and those of sparse int8 columns, which here are the outliers of 16-bit accumulation. Where FBGEMM compares
floats within 1e-6, here sums have an order.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lowgemm import ops, reference
from lowgemm.reference import SparseBlocks, SparseRows

from isa import isas
from kernels import full_range

# FBGEMM's shares of weights that are not zero, and depths around the 4096 that it takes at a time.
DENSITIES = (0.1, 0.2, 0.3)
LONG = (4000, 4001, 4096, 5000)
DRAWS = 40
SPMDM_DENSITIES = (0.0001, 0.001, 0.01, 0.05, 0.1, 1.0)


def sizes(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """(outputs, columns, depth): drawn up to 32, and the long ones."""
    drawn = rng.integers(1, 33, (DRAWS + len(LONG), 3)).tolist()
    for size, depth in zip(drawn, LONG, strict=False):
        size[2] = depth
    return [(outputs, columns, depth) for outputs, columns, depth in drawn]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("density", DENSITIES)
def test_blocks_of_int8(isa: str, density: float, conformance) -> None:
    """Accumulated and requantized, with and without bias and ReLU, zero points for the tensor and for each output."""
    rng = np.random.default_rng(int(density * 10))
    cases = 0
    for outputs, columns, depth in sizes(rng):
        weight = full_range(rng, (outputs, depth), "int8")
        weight[rng.random(weight.shape) >= density] = 0
        blocks = SparseBlocks.from_dense(weight)
        x = full_range(rng, (depth, columns), "uint8")
        plus = full_range(rng, (outputs, columns), "int32")
        acc = reference.sparse_gemm_i32(blocks, x)
        packed = ops.pack_sparse_gemm(blocks, target=isa)
        assert_array_equal(packed(x), acc)
        assert_array_equal(packed(x, plus=plus), reference.sparse_gemm_i32(blocks, x, plus))
        per_output = rng.random() < 0.5
        count = outputs if per_output else 1
        zeros = rng.integers(-10, 10, count) * int(rng.integers(2))
        scale = rng.uniform(0.1, 0.2, count).astype(np.float32)
        bias = rng.normal(size=outputs).astype(np.float32) if rng.random() < 0.5 else None
        out_scale = float(np.float32(1 + 0.1 * np.abs(acc).max() / 100))
        output = ops.SparseOutput(
            scale, out_scale, 50, int(rng.integers(256)), zeros, bias, relu=bool(rng.integers(2))
        )
        offsets = weight.sum(1, dtype=np.int64) - np.broadcast_to(zeros, outputs) * depth
        wanted = reference.requantize_transposed(
            acc,
            scale if per_output else scale[0],
            out_scale,
            50,
            x_zero_point=output.x_zero_point,
            weight_zero_point=zeros if per_output else int(zeros[0]),
            weight_offsets=offsets.astype(np.int32),
            x_sums=x.sum(0, dtype=np.int32),
            bias=bias,
            relu=output.relu,
        )
        assert_array_equal(ops.pack_sparse_gemm(blocks, output=output, target=isa)(x), wanted)
        cases += 3
    conformance("sparse_gemm", isa, cases)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("density", DENSITIES)
def test_rows_of_float32(isa: str, density: float, conformance) -> None:
    """Alone, and added to what was there."""
    rng = np.random.default_rng(int(density * 10))
    cases = 0
    for outputs, columns, depth in sizes(rng):
        weight = rng.normal(size=(outputs, depth)).astype(np.float32)
        weight[rng.random(weight.shape) >= density] = 0
        rows = SparseRows.from_dense(weight)
        x = rng.normal(size=(depth, columns)).astype(np.float32)
        plus = rng.normal(size=(outputs, columns)).astype(np.float32)
        packed = ops.pack_sparse_gemm_f32(rows, target=isa)
        assert_array_equal(packed(x), reference.sparse_gemm_f32(rows, x))
        assert_array_equal(packed(x, plus=plus), reference.sparse_gemm_f32(rows, x, plus))
        cases += 2
    conformance("sparse_gemm_f32", isa, cases)


@pytest.mark.parametrize("isa", isas())
def test_sparse_columns(isa: str, conformance) -> None:
    """Nothing but outliers: the product of the dense part, which is zero, adds nothing to that of the sparse one."""
    rng = np.random.default_rng(11)
    depth, columns = 96, 70
    a = full_range(rng, (45, depth), "uint8")
    for density in SPMDM_DENSITIES:
        b = np.where(rng.random((depth, columns)) < 0.5, 127, -128).astype(np.int8)
        b[rng.random(b.shape) >= density] = 0
        packed = ops.pack_gemm_acc16(b, outliers=True, target=isa)
        for rows in (1, 16, 45):
            assert_array_equal(packed(a[:rows]), reference.gemm_i32(a[:rows], b))
            conformance("spmdm", isa, 1)
