"""Output stages of integer kernels: from the 32-bit accumulator to the stored element.

Requantize (numerics 1):  q = clamp(rint(float32(acc + bias) * scale) + zero_point, low, high), ties to even, the zero
point added after rounding. `bias` already holds the zero-point correction `-x_zero_point * sum_k w`; `low` and `high`
are the dtype's range, narrowed by a fused ReLU or clip (a clip commutes with a monotone quantizer, so this is exact).

Residual add (numerics 2): with a = q above and b the other operand,
    y = clamp(rint(((a - za) * sa + (b - zb) * sb) / sy) + zy, low, high)
in float32, operation by operation as ONNX writes DequantizeLinear, Add, QuantizeLinear.
"""

from tvm import te, tirx

from lowgemm.topi._arith import quantized, rounded

REQUANTIZE_PARAMS = 3
ADD_PARAMS = 8


def requantize(acc, bias, scale, params: te.Tensor):
    """Numerics 1 as a float32 holding an integer. `params` float32 `(zero_point, low, high)`."""
    value = tirx.nearbyint((acc + bias).astype("float32") * scale) + params[0]
    return tirx.max(tirx.min(value, params[2]), params[1])


def add(a, b, params: te.Tensor):
    """Numerics 2 on float32 values holding integers. `params` float32 `(za, sa, zb, sb, sy, zy, low, high)`."""
    total = rounded((a - params[0]) * params[1]) + rounded((b - params[2]) * params[3])
    value = tirx.nearbyint(total / params[4]) + params[5]
    return tirx.max(tirx.min(value, params[7]), params[6])


def store(value, dtype: str):
    """`value` (float32 holding an integer in range, or a float result) as the output dtype."""
    return value if dtype == "float32" else quantized(value, dtype)


__all__ = ["ADD_PARAMS", "REQUANTIZE_PARAMS", "add", "requantize", "store"]
