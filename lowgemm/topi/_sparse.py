"""Sparse weights times dense activations, the weights on the left: blocks of int8 and rows of float32."""

from dataclasses import dataclass

from lowgemm.topi._arith import f32, like, round_clamped_int, to_float

# Columns of the weight in a block.
BLOCK = 4
# (scale, zero point, least code) of a code, as float32.
SPARSE_PARAMS = 3


@dataclass(frozen=True)
class SparseForm:
    """The variant of the product with int8 blocks, whose numbers `reference.sparse_gemm_i32` and
    `reference.requantize_transposed` define (FBGEMM's `fbgemmSparseDenseInt8MM` and `trRequantizeRef`).

        t[i, j] = plus[i, j] + sum_k W[i, k] * x[k, j] + offset[i] - weight_zero[i] * sum_k x[k, j]     modulo 2^32

    and, if `codes`, clamp(rint((float32(t) + bias[i]) * factor[i] / scale) + zero point), each step rounded to float32.
    Without codes, t is stored, and neither offset nor weight_zero counts.
    """

    codes: bool = False
    weight_zero: bool = False
    plus: bool = False


def sparse_code(total, bias, factor, scale, zero, low):
    """The code of the int32 sum `total`, in as many lanes; `scale`, `zero` and `low` as of `SPARSE_PARAMS`."""
    real = (to_float(total) + bias) * factor / scale
    return round_clamped_int(real, low - zero, f32(255.0) - zero) + zero.astype(like("int32", zero))
