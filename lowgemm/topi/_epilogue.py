"""Output stages of integer kernels: from the 32-bit accumulator to the stored element.

Requantize (numerics 1):  q = clamp(rint(float32(acc + bias) * scale) + zero_point, low, high), ties to even, the zero
point added after rounding. `bias` already holds the zero-point correction `-x_zero_point * sum_k w`; `low` and `high`
are the dtype's range, narrowed by a fused ReLU or clip (a clip commutes with a monotone quantizer, so this is exact).

Sum (numerics 2) of codes a and b:  y = clamp(rint(fma(a, sa / sy, fma(b, sb / sy, fixed))), low, high), with the zero
points folded into `fixed` (`quant.sum_factors`), as ONNX Runtime's QLinearAdd computes it. A residual is added to the
code that numerics 1 gives: the convolution's own rounding to 8 bits stays where the model put it.
"""

from tvm import te

from lowgemm.topi._arith import fma, like, round_clamped, round_clamped_int, to_float

REQUANTIZE_PARAMS = 3
ADD_PARAMS = 5


def requantize(acc, bias, scale, params: te.Tensor):
    """Numerics 1 as int32. `params` float32 `(zero_point, low, high)`."""
    return quantized_from(to_float(acc + bias) * scale, *(params[i] for i in range(3)))


def quantized_from(real, zero_point, low, high):
    """clamp(rint(real) + zero_point, low, high) as int32: the zero point is added after rounding, so that ties stay
    where they are."""
    code = round_clamped_int(real, low - zero_point, high - zero_point)
    return code + zero_point.astype(like("int32", zero_point))


def requantize_add(
    acc, bias, scale, params: te.Tensor, other, add_params: te.Tensor, other_first: bool
):
    """Numerics 1, then numerics 2 of its code and `other` (the first operand if `other_first`), as int32."""
    zero_point, low, high = (params[i] for i in range(3))
    real = to_float(acc + bias) * scale
    code = round_clamped(real, low - zero_point, high - zero_point, zero_point)
    operands = (to_code(other), code) if other_first else (code, to_code(other))
    return _sum(*operands, add_params)


def add(a, b, params: te.Tensor):
    """Numerics 2 as int32, of two codes. `params` float32 `(sa / sy, sb / sy, fixed, low, high)`."""
    return _sum(to_code(a), to_code(b), params)


def to_code(value):
    """An 8-bit code as float32."""
    return value.astype("float32")


def _sum(a, b, params: te.Tensor):
    total = fma(a, params[0], fma(b, params[1], params[2]))
    return round_clamped_int(total, params[3], params[4])
