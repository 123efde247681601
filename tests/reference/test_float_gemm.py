"""The bound of float32 products holds for every order of summation, and is not much wider than it must be."""

import numpy as np
import pytest

from lowgemm.errors import InputError
from lowgemm.quant import dequantize_groups, from_bfloat16, quantize_groups, to_bfloat16
from lowgemm.reference import BFLOAT16_ROUNDOFF, gemm_f32

F = np.float32


def in_order(lhs: np.ndarray, rhs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Products and sums rounded to float32 one after the other."""
    total = np.zeros((lhs.shape[0], rhs.shape[1]), F)
    for k in order:
        total = total + lhs[:, k, None] * rhs[k]
    return total


@pytest.mark.parametrize("depth", [1, 2, 64, 3000])
@pytest.mark.parametrize("spread", [0, 12])  # of the exponents: with cancellation between them
def test_any_order_of_summation_is_within_the_bound(depth: int, spread: int):
    rng = np.random.default_rng(depth)
    lhs = np.ldexp(rng.normal(size=(3, depth)), rng.integers(-spread, spread + 1, depth)).astype(F)
    rhs = rng.normal(size=(depth, 4)).astype(F)
    exact = gemm_f32(lhs, rhs)
    for order in (np.arange(depth), np.arange(depth)[::-1], rng.permutation(depth)):
        # A product and a sum are two roundings where an FMA has one, but the product's is that of the first sum.
        assert exact.holds(in_order(lhs, rhs, order))
    assert exact.holds(lhs @ rhs)


def test_an_error_of_one_product_is_seen():
    rng = np.random.default_rng(0)
    lhs, rhs = rng.normal(size=(4, 512)).astype(F), rng.normal(size=(512, 5)).astype(F)
    exact = gemm_f32(lhs, rhs)
    lhs[2, 300] += F(0.1)  # the bound is 0.01: 512 roundings of a sum of about 330
    assert not exact.holds(lhs @ rhs)
    assert not exact.holds(lhs[:, :511] @ rhs[:511])


def test_small_integers_are_exact():
    rng = np.random.default_rng(1)
    lhs, rhs = rng.integers(0, 5, (6, 200)).astype(F), rng.integers(0, 5, (200, 7)).astype(F)
    plus = rng.integers(0, 5, (6, 7)).astype(F)
    assert (gemm_f32(lhs, rhs, plus).value == lhs @ rhs + plus).all()


def test_what_is_added_widens_the_bound():
    lhs, rhs = np.ones((1, 2), F), np.ones((2, 1), F)
    plus = np.full((1, 1), 1e8, F)
    found = in_order(lhs, rhs, np.arange(2)) + plus
    assert gemm_f32(lhs, rhs, plus).holds(found)
    assert not gemm_f32(lhs, rhs).holds(found - plus + F(1e-3))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_kernel_may_apply_the_scale_before_or_after_the_sum_of_a_group(bits: int):
    rng = np.random.default_rng(bits)
    lhs = rng.normal(size=(3, 64)).astype(F)
    codes, scales = quantize_groups(rng.normal(size=(64, 5)).astype(F), 16, bits)
    exact = gemm_f32(lhs, dequantize_groups(codes, scales, 16))
    after = sum(
        in_order(lhs[:, k : k + 16], codes[k : k + 16].astype(F), np.arange(16)) * scales[k // 16]
        for k in range(0, 64, 16)
    )
    assert exact.holds(np.asarray(after))
    assert exact.holds(in_order(lhs, dequantize_groups(codes, scales, 16), np.arange(64)))


def test_operands_rounded_to_bfloat16_have_a_bound_of_their_own():
    rng = np.random.default_rng(2)
    lhs, rhs = rng.normal(size=(3, 256)).astype(F), rng.normal(size=(256, 5)).astype(F)
    weight = from_bfloat16(to_bfloat16(rhs))
    narrow = from_bfloat16(to_bfloat16(lhs))
    assert gemm_f32(lhs, weight, operand_roundoff=BFLOAT16_ROUNDOFF).holds(narrow @ weight)
    assert not gemm_f32(lhs, weight).holds(narrow @ weight)


def test_results_that_underflow_are_within_the_bound():
    lhs, rhs = np.full((1, 3), 1e-25, F), np.full((3, 1), 1e-25, F)
    assert gemm_f32(lhs, rhs).holds(np.zeros((1, 1), F))


def test_a_depth_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="lhs has depth 3, rhs 2 rows"):
        gemm_f32(np.ones((1, 3), F), np.ones((2, 1), F))
