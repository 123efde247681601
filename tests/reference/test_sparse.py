"""Sparse forms hold the dense matrix, and their products are the dense ones."""

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.reference import (
    SparseBlocks,
    SparseColumns,
    SparseRows,
    gemm_acc16,
    gemm_i32,
    sparse_gemm_f32,
    sparse_gemm_i32,
    split_outliers,
    spmdm_i32,
)

DENSITIES = [0.0, 0.01, 0.3, 1.0]


def sparse(rng: np.random.Generator, shape: tuple[int, int], density: float) -> np.ndarray:
    """int8 over the whole range where it is not zero."""
    return (rng.integers(-128, 128, shape) * (rng.random(shape) < density)).astype(np.int8)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 10), (64, 33)])
def test_forms_hold_the_matrix_and_its_nonzeros_only(density: float, shape: tuple[int, int]):
    dense = sparse(np.random.default_rng(0), shape, density)
    columns, blocks = SparseColumns.from_dense(dense), SparseBlocks.from_dense(dense)
    rows = SparseRows.from_dense(dense.astype(np.float32))
    for form in (columns, blocks, rows):
        assert (form.to_dense() == dense).all()
    assert columns.values.size == rows.values.size == np.count_nonzero(dense)
    assert columns.starts.size == shape[1] + 1
    assert blocks.values.any(axis=1).all()
    assert blocks.starts[-1] == len(blocks.values) == blocks.blocks.size


def test_a_block_is_four_columns_of_a_row():
    dense = np.zeros((2, 10), np.int8)
    dense[0, 5], dense[1, 9] = 3, -4
    blocks = SparseBlocks.from_dense(dense)
    assert blocks.starts.tolist() == [0, 1, 2]
    assert blocks.blocks.tolist() == [1, 2]
    assert blocks.values.tolist() == [[0, 3, 0, 0], [0, -4, 0, 0]]


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("groups", [1, 3])
def test_spmdm_is_the_dense_product_added(density: float, groups: int):
    rng = np.random.default_rng(1)
    lhs = rng.integers(0, 256, (5, 20 * groups)).astype(np.uint8)
    dense = sparse(rng, (20, 4 * groups), density)
    below = np.concatenate(np.split(dense, groups, axis=1))
    plus = rng.integers(-(2**31), 2**31, (5, 4 * groups)).astype(np.int32)
    acc = gemm_i32(lhs, below, groups=groups)
    rhs = SparseColumns.from_dense(dense)
    assert (spmdm_i32(lhs, rhs, groups=groups) == acc).all()
    assert (spmdm_i32(lhs, rhs, plus, groups) == plus + acc).all()


def test_outliers_bring_a_16_bit_product_back_to_the_exact_one():
    rng = np.random.default_rng(2)
    lhs = rng.integers(0, 51, (6, 100)).astype(np.uint8)
    weight = rng.integers(-8, 9, (100, 7)).astype(np.int8)
    weight[rng.random(weight.shape) < 0.05] = -128
    dense, outliers = split_outliers(weight)
    assert (spmdm_i32(lhs, outliers, gemm_acc16(lhs, dense)) == gemm_i32(lhs, weight)).all()


@pytest.mark.parametrize("depth", [1, 4, 30])
def test_block_sparse_weights_stand_on_the_left(depth: int):
    rng = np.random.default_rng(depth)
    weight = sparse(rng, (9, depth), 0.2)
    x = rng.integers(0, 256, (depth, 5)).astype(np.uint8)
    plus = rng.integers(-1000, 1000, (9, 5)).astype(np.int32)
    exact = weight.astype(np.int64) @ x.astype(np.int64)
    assert (sparse_gemm_i32(SparseBlocks.from_dense(weight), x) == exact).all()
    assert (sparse_gemm_i32(SparseBlocks.from_dense(weight), x, plus) == plus + exact).all()


def test_float_products_are_summed_in_the_order_of_the_nonzeros():
    # 1e8 + 1 - 1e8: in float32 the 1 is lost, unless the large ones meet first.
    lhs = SparseRows(3, np.array([0, 3, 6]), np.array([0, 1, 2, 0, 2, 1]), np.ones(6, np.float32))
    rhs = np.array([[1e8], [1], [-1e8]], np.float32)
    assert sparse_gemm_f32(lhs, rhs).tolist() == [[0], [1]]
    assert sparse_gemm_f32(lhs, rhs, np.full((2, 1), 4, np.float32)).tolist() == [[0], [1]]


def test_float_products_are_fused():
    value = np.float32(1 + 2**-12)
    lhs = SparseRows.from_dense(np.array([[value, 1]], np.float32))
    rhs = np.array([[value], [-np.float32(value * value)]], np.float32)
    assert sparse_gemm_f32(lhs, rhs).item() == 0  # the first product starts from 0 and is rounded
    plus = -np.float32(value * value)
    fused = sparse_gemm_f32(lhs, rhs[:, :] * [[1], [0]], np.array([[plus]], np.float32))
    assert fused.item() == float(value) ** 2 - float(np.float32(value * value))


@pytest.mark.parametrize("density", DENSITIES)
def test_float_products_of_small_integers_are_exact(density: float):
    rng = np.random.default_rng(3)
    lhs, rhs = sparse(rng, (8, 30), density).astype(np.float32), rng.integers(-9, 9, (30, 5))
    found = sparse_gemm_f32(SparseRows.from_dense(lhs), rhs.astype(np.float32))
    assert found.dtype == np.float32
    assert (found == lhs @ rhs).all()


def test_a_depth_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="lhs has depth 3, rhs 2 rows"):
        sparse_gemm_f32(SparseRows.from_dense(np.ones((1, 3))), np.ones((2, 1), np.float32))
