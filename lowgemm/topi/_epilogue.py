"""Output stages of integer kernels: from the 32-bit accumulator to the stored element.

Requantize (numerics 1):  q = clamp(rint(float32(acc + bias) * scale) + zero_point, low, high), ties to even, the zero
point added after rounding. `bias` already holds the zero-point correction `-x_zero_point * sum_k w`; `low` and `high`
are the dtype's range, narrowed by a fused ReLU or clip (a clip commutes with a monotone quantizer, so this is exact).

Residual add (numerics 2): with a = q above and b the other operand,
    y = clamp(rint((a - za) * (sa / sy) + (b - zb) * (sb / sy)) + zy, low, high)
in float32, the two ratios rounded once at compile time. ONNX writes the division by sy last; the two forms differ only
where the sum lies within rounding of a tie.
"""

from tvm import te

from lowgemm.topi._arith import product, round_clamped, round_clamped_int, to_float

REQUANTIZE_PARAMS = 3
ADD_PARAMS = 7


def requantize(acc, bias, scale, params: te.Tensor):
    """Numerics 1 as int32. `params` float32 `(zero_point, low, high)`."""
    return quantized_from(to_float(acc + bias) * scale, *(params[i] for i in range(3)))


def quantized_from(real, zero_point, low, high):
    """clamp(rint(real) + zero_point, low, high) as int32: the zero point is added after rounding, so that ties stay
    where they are."""
    code = round_clamped_int(real, low - zero_point, high - zero_point)
    return code + zero_point.astype("int32")


def requantize_add(acc, bias, scale, params: te.Tensor, other, add_params: te.Tensor):
    """Numerics 1, then numerics 2 with its result as the first operand, as int32.

    `za` is the zero point of the requantization, and is neither added nor subtracted here.
    """
    zero_point, low, high = (params[i] for i in range(3))
    real = to_float(acc + bias) * scale
    centred = round_clamped(real, low - zero_point, high - zero_point)
    return _sum(centred, other.astype("float32") - add_params[2], add_params)


def add(a, b, params: te.Tensor):
    """Numerics 2 as int32, of two codes. `params` float32 `(za, sa / sy, zb, sb / sy, zy, low, high)`."""
    return _sum(a.astype("float32") - params[0], b.astype("float32") - params[2], params)


def _sum(a, b, params: te.Tensor):
    total = product(a, params[1]) + product(b, params[3])
    return quantized_from(total, *(params[i] for i in range(4, 7)))
