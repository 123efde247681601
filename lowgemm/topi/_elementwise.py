"""Quantized operators without weights: add, mul, pooling, resize, data movement, quantize and dequantize.

Four-dimensional quantized tensors are NHWC, float tensors keep the model's own order. Each function returns a PrimFunc
whose output block is named `dst` (and, for pooling, whose sum is `acc`).
"""

import tvm
from tvm import te, tirx

from lowgemm.topi import _epilogue
from lowgemm.topi._arith import f32, round_clamped


def qadd(size: int, a_dtype: str, b_dtype: str, out_dtype: str) -> tvm.tirx.PrimFunc:
    """Numerics 2 on flat tensors. Arguments: a, b `(size,)`; params float32 `(5,)`; dst `(size,)`."""
    a = te.placeholder((size,), a_dtype, name="a")
    b = te.placeholder((size,), b_dtype, name="b")
    params = te.placeholder((_epilogue.ADD_PARAMS,), "float32", name="params")
    dst = te.compute(
        (size,),
        lambda i: _epilogue.narrowed(*_epilogue.sum_steps(a[i], b[i], params), out_dtype),
        name="dst",
    )
    return te.create_prim_func([a, b, params, dst])


def qmul(
    pixels: int,
    channels: int,
    per_channel: bool,
    a_dtype: str,
    b_dtype: str,
    out_dtype: str,
    residual: str | None = None,
    residual_first: bool = False,
) -> tvm.tirx.PrimFunc:
    """y = clamp(rint((a - za) * (b - zb) * (sa * sb / sy)) + zy, low, high): an exact integer product, one rounding.

    With a `residual`, the dtype of another operand, its sum with y (numerics 2), as its first operand if
    `residual_first`. Arguments: a `(pixels, channels)`; b the same shape, or `(channels,)`; params float32
    `(za, zb, sa * sb / sy, zy, low, high)`; other like a and add float32 `(5,)` if there is a residual; dst.
    """
    a = te.placeholder((pixels, channels), a_dtype, name="a")
    b = te.placeholder((channels,) if per_channel else (pixels, channels), b_dtype, name="b")
    params = te.placeholder((6,), "float32", name="params")
    args = [a, b, params]
    if residual:
        other = te.placeholder((pixels, channels), residual, name="other")
        add = te.placeholder((_epilogue.ADD_PARAMS,), "float32", name="add")
        args += [other, add]

    def factor(*at):
        return b(*at).astype("float32") - params[1]

    # One for each channel is converted once, not with each pixel.
    factors = te.compute((channels,), factor, name="factors") if per_channel else None

    def value(p, c):
        first = a[p, c].astype("float32") - params[0]
        second = factor(p, c) if factors is None else factors[c]
        real, zero, low, high = first * second * params[2], params[3], params[4], params[5]
        if not residual:
            return _epilogue.narrowed(real, zero, low, high, out_dtype)
        code = round_clamped(real, low - zero, high - zero, zero)
        terms = (other[p, c], code) if residual_first else (code, other[p, c])
        return _epilogue.narrowed(*_epilogue.sum_steps(*terms, add), dtype=out_dtype)

    dst = te.compute((pixels, channels), value, name="dst")
    return te.create_prim_func([*args, dst])


def quantize(shape: tuple[int, ...], out_dtype: str) -> tvm.tirx.PrimFunc:
    """q = saturate(rint(x / scale) + zero_point): ONNX's QuantizeLinear.

    A four-dimensional x `(n, c, h, w)` becomes q `(n, h, w, c)`. Arguments: x float32; params float32
    `(scale, zero_point)`; dst.
    """
    x = te.placeholder(shape, "float32", name="x")
    params = te.placeholder((2,), "float32", name="params")
    low, high = (0, 255) if out_dtype == "uint8" else (-128, 127)

    def code(*i):
        return _epilogue.narrowed(x(*i) / params[0], params[1], f32(low), f32(high), out_dtype)

    if len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1:
        dst = te.compute(shape, code, name="dst")
        return te.create_prim_func([x, params, dst])
    n, c, h, w = shape
    rows = te.compute((n, h, c, w), lambda n, h, c, w: code(n, c, h, w), name="rows")
    dst = te.compute((n, h, w, c), lambda n, h, w, c: rows[n, h, c, w], name="dst")
    return te.create_prim_func([x, params, dst])


def dequantize(shape: tuple[int, ...], in_dtype: str) -> tvm.tirx.PrimFunc:
    """x = (q - zero_point) * scale: ONNX's DequantizeLinear.

    q `(n, h, w, c)` becomes x `(n, c, h, w)` = `shape`. Arguments: q; params float32 `(scale, zero_point)`; dst.
    """
    params = te.placeholder((2,), "float32", name="params")
    moved = len(shape) == 4 and shape[1] != 1 and shape[2] * shape[3] != 1
    q_shape = (shape[0], shape[2], shape[3], shape[1]) if moved else shape
    q = te.placeholder(q_shape, in_dtype, name="q")

    def real(*i):
        source = (i[0], i[2], i[3], i[1]) if moved else i
        return (q(*source).astype("float32") - params[1]) * params[0]

    dst = te.compute(shape, real, name="dst")
    return te.create_prim_func([q, params, dst])


def qpool(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    out_hw: tuple[int, int],
    dtype: str,
    dilations: tuple[int, int] = (1, 1),
    average: tuple[str, bool] | None = None,
) -> tvm.tirx.PrimFunc:
    """Pooling of q `(n, h, w, c)` = `shape`; padding (top, left, bottom, right) takes no part in a maximum.

    With `average` = (output dtype, count padding): y = clamp(rint(((sum - count * zx) * sx / count) / sy) + zy). The
    count leaves padding out unless told otherwise. Arguments: q; for an average, params float32
    `(zx, sx, sy, zy, low, high)`; dst `(n, *out_hw, c)`.
    """
    n, h, w, c = shape
    q = te.placeholder(shape, dtype, name="q")
    ry = te.reduce_axis((0, kernel[0]), "ry")
    rx = te.reduce_axis((0, kernel[1]), "rx")
    top, left, bottom, right = pads
    reach = [
        (out - 1) * stride + (size - 1) * dilation + 1
        for out, stride, size, dilation in zip(out_hw, strides, kernel, dilations, strict=True)
    ]
    guarded = any(pads) or reach[0] > h or reach[1] > w

    def element(n_, y, x, c_, outside, convert):
        iy = y * strides[0] + ry * dilations[0] - top
        ix = x * strides[1] + rx * dilations[1] - left
        value = convert(q[n_, iy, ix, c_])
        if not guarded:
            return value
        return tirx.if_then_else(tirx.all(iy >= 0, iy < h, ix >= 0, ix < w), value, outside)

    out_shape = (n, *out_hw, c)
    if average is None:
        low = tirx.const(0 if dtype == "uint8" else -128, dtype)
        dst = te.compute(
            out_shape,
            lambda n_, y, x, c_: te.max(element(n_, y, x, c_, low, lambda v: v), axis=[ry, rx]),
            name="dst",
        )
        return te.create_prim_func([q, dst])
    out_dtype, count_padding = average
    params = te.placeholder((6,), "float32", name="params")
    zero = tirx.const(0, "int32")
    acc = te.compute(
        out_shape,
        lambda n_, y, x, c_: te.sum(
            element(n_, y, x, c_, zero, lambda v: v.astype("int32")), axis=[ry, rx]
        ),
        name="acc",
    )

    def span(start, kernel_size, size, before, after):
        first = start - before
        if not guarded:
            return tirx.const(kernel_size, "int32"), tirx.const(kernel_size, "int32")
        real = tirx.min(first + kernel_size, size) - tirx.max(first, 0)
        padded = tirx.min(first + kernel_size, size + after) - first
        return real, padded

    def value(n_, y, x, c_):
        real_y, padded_y = span(y * strides[0], kernel[0], h, top, bottom)
        real_x, padded_x = span(x * strides[1], kernel[1], w, left, right)
        real = (real_y * real_x).astype("float32")
        count = (padded_y * padded_x).astype("float32") if count_padding else real
        mean = (acc[n_, y, x, c_].astype("float32") - real * params[0]) * params[1] / count
        code = _epilogue.quantized_from(mean / params[2], params[3], params[4], params[5])
        return code.astype(out_dtype)

    dst = te.compute(out_shape, value, name="dst")
    return te.create_prim_func([q, params, dst])


def qresize(shape: tuple[int, ...], out_hw: tuple[int, int], dtype: str) -> tvm.tirx.PrimFunc:
    """Nearest-neighbour resize: dst[n, y, x, c] = q[n, rows[y], columns[x], c], the index maps int32 arguments."""
    q = te.placeholder(shape, dtype, name="q")
    rows = te.placeholder((out_hw[0],), "int32", name="rows")
    columns = te.placeholder((out_hw[1],), "int32", name="columns")
    dst = te.compute(
        (shape[0], *out_hw, shape[3]), lambda n, y, x, c: q[n, rows[y], columns[x], c], name="dst"
    )
    return te.create_prim_func([q, rows, columns, dst])


def move(
    extents: tuple[int, ...], strides: tuple[int, ...], first: int, size: int, dtype: str
) -> tvm.tirx.PrimFunc:
    """dst[i, j, ...] = source[first + i * strides[0] + j * strides[1] + ...]: any copy that is a nest of loops.

    Arguments: source `(size,)`; dst `extents`. Strides count elements and may be negative.
    """
    source = te.placeholder((size,), dtype, name="source")

    def element(*index):
        at = tirx.const(first, "int32")
        for i, stride in zip(index, strides, strict=True):
            at = at + i * stride
        return source[at]

    return te.create_prim_func([source, te.compute(extents, element, name="dst")])
