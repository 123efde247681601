"""Output stages of integer kernels: from the 32-bit accumulator to the stored element.

Requantize (numerics 1):  q = clamp(rint(float32(acc + bias) * scale) + zero_point, low, high), ties to even, the zero
point added after rounding. `bias` already holds the zero-point correction `-x_zero_point * sum_k w`; `low` and `high`
are the dtype's range, narrowed by a fused ReLU or clip (a clip commutes with a monotone quantizer, so this is exact).

Sum (numerics 2) of codes a and b:  y = clamp(rint(fma(a, sa / sy, fma(b, sb / sy, fixed))), low, high), with the zero
points folded into `fixed` (`quant.sum_factors`), as ONNX Runtime's QLinearAdd computes it. A residual is added to the
code that numerics 1 gives: the convolution's own rounding to 8 bits stays where the model put it.

Hard-swish (numerics 3) of a code less its zero point, q:  y = clamp(rint(fma(q, clip(fma(q, slope, half), least, most),
fixed))), with the scales and the zero point of the result folded into the factors (`quant.hard_swish_factors`).
"""

from tvm import te, tirx

from lowgemm.topi._arith import (
    f32,
    fma,
    like,
    nearest,
    round_clamped_int,
    rounded,
    saturated,
    to_float,
)

ADD_PARAMS = 5
SWISH_PARAMS = 5
# Beyond all codes, and far enough from the ends of int32 for a zero point.
FAR = 2.0**30


def requantize(acc, bias, scale, params: te.Tensor):
    """Numerics 1 as int32. `params` float32 `(zero_point, low, high)`."""
    return quantized_from(to_float(acc + bias) * scale, *(params[i] for i in range(3)))


def quantized_from(real, zero_point, low, high):
    """clamp(rint(real) + zero_point, low, high) as int32: the zero point is added after rounding, so that ties stay
    where they are."""
    code = round_clamped_int(real, low - zero_point, high - zero_point)
    return code + zero_point.astype(like("int32", zero_point))


def narrowed(real, zero_point, low, high, dtype: str):
    """`quantized_from` as `dtype`, in fewer instructions where vectors become bytes, as these saturate.

    What is below all codes is left to them, and `low` bounds bytes, of which a vector holds more than of floats.
    """
    code = saturated(capped(real, zero_point, high, dtype), dtype)
    return tirx.max(code, low.astype(like(dtype, low)))


def capped(real, zero_point, high, dtype: str):
    """rint(real) + zero_point, at most `high`, as int32; what is below all codes of `dtype` stays below them."""
    # The second operand is taken of a NaN.
    return _moved(tirx.min(high - zero_point, real), zero_point, dtype)


def unsaturated(real, zero_point, low, high):
    """`quantized_from` in fewer instructions, where it is known that what packs the result saturates.

    Without `low` and `high` (None), |real| is at most `FAR`, and without `zero_point` that is 0.
    """
    if low is not None:
        # The second operand is taken of a NaN.
        real = tirx.min(tirx.max(real, low - zero_point), high - zero_point)
    code = nearest(real)
    return code if zero_point is None else code + zero_point.astype(like("int32", zero_point))


def saturating_code(bounded, zero_point, dtype: str):
    """rint(bounded) + zero_point as the nearest code of `dtype`; `bounded` is at most `FAR`, or NaN: the least code."""
    return saturated(_moved(bounded, zero_point, dtype), dtype)


def _moved(bounded, zero_point, dtype: str):
    """rint(bounded) + zero_point as int32, below all codes of `dtype` where `bounded` is, or where it is NaN."""
    if dtype == "int8":  # zero points below 0 would take the least integer out of range
        bounded = tirx.max(bounded, f32(-FAR))
    return nearest(bounded) + zero_point.astype(like("int32", zero_point))


def add(a, b, params: te.Tensor):
    """Numerics 2 as int32, of two codes. `params` float32 `(sa / sy, sb / sy, fixed, low, high)`."""
    return quantized_from(*sum_steps(a, b, params))


def sum_steps(a, b, params: te.Tensor):
    """Numerics 2 before it rounds: (real, zero point, low, high), as `quantized_from` and `narrowed` take it."""
    total = fma(to_float(a), params[0], fma(to_float(b), params[1], params[2]))
    return total, f32(0.0), params[3], params[4]


def hard_swish_steps(real, params: te.Tensor, dtype: str):
    """Numerics 3 of the integer that is nearest to `real`, before it rounds: (real, zero point, low, high), which are
    the ends of `dtype`. `params` float32 `(slope, half, least, most, fixed)`."""
    code = rounded(real)
    # Of a maximum with a constant 0 LLVM makes two instructions: a comparison and a mask.
    gate = tirx.min(tirx.max(fma(code, params[0], params[1]), params[2]), params[3])
    low, high = (0.0, 255.0) if dtype == "uint8" else (-128.0, 127.0)
    return fma(code, gate, params[4]), f32(0.0), f32(low), f32(high)
