"""Quantized 2-D convolution and GEMM (a 1x1 convolution over rows) as one tensor expression."""

from dataclasses import dataclass

import tvm
from tvm import te, tirx

from lowgemm.packing import ConvPacking, ConvShape
from lowgemm.topi import _epilogue


@dataclass(frozen=True)
class ConvForm:
    """The variant of the operator: dtypes, and what is fused behind the accumulation.

    `tile` is `(rows, columns)` of output pixels that a kernel computes at once: the accumulation is defined on sizes
    rounded up to it (the surplus is computed and dropped), so that no tile needs a guard. `staged` says that the input
    goes through a padded copy in the operand dtype. `residual` is the dtype of a tensor to add, which is the sum's
    first operand if `residual_first`.
    """

    in_dtype: str
    out_dtype: str
    tile: tuple[int, int]
    staged: bool
    widen: bool
    residual: str | None = None
    residual_first: bool = False


def qconv2d(shape: ConvShape, packing: ConvPacking, form: ConvForm) -> tvm.tirx.PrimFunc:
    """The convolution `shape` of NHWC activations with packed weights.

    acc[n, y, x, o] = sum_{r, c, i} x[n, y*sh + r*dh - top, x*sw + c*dw - left, g(o) + i] * w[o, i, r, c]

    modulo 2^32, where input outside the image is the padding value (the activation's zero point), then the epilogue.

    Arguments of the function, in order:
        data `(batch, height, width * in_channels)` u8 or s8; weight `packing.packed_shape` s8;
        bias int32 and scale float32 `(panels * lanes,)`; pad int32 `(1,)` if staged; out float32 `(3,)` if the output
        is 8-bit; with a residual: other, the output's shape, and add float32 `(5,)`;
        dst `(batch, oh, ow, out_channels)`.
    """
    lanes, depth = packing.layout.lanes, packing.layout.depth
    channels = shape.in_channels
    row = shape.width * channels
    data = te.placeholder((shape.batch, shape.height, row), form.in_dtype, name="data")
    weight = te.placeholder(packing.packed_shape, "int8", name="weight")
    bias = te.placeholder((packing.panels * lanes,), "int32", name="bias")
    scale = te.placeholder((packing.panels * lanes,), "float32", name="scale")
    args = [data, weight, bias, scale]

    out_h = -(-shape.out_height // form.tile[0]) * form.tile[0]
    out_w = -(-shape.out_width // form.tile[1]) * form.tile[1]
    (stride_h, stride_w), (step_h, step_w) = _strides(shape)
    dil_h, dil_w = shape.dilations
    if form.staged:
        pad = te.placeholder((1,), "int32", name="pad")
        args.append(pad)
        staged_h = (out_h - 1) * stride_h + (shape.kernel[0] - 1) * dil_h + 1
        staged_w = (out_w - 1) * stride_w + (shape.kernel[1] - 1) * dil_w + 1
        # A padded run reads past the last pixel, against zero weights.
        slack = -(-(packing.padded_run - packing.run) // channels) * channels
        row = staged_w * channels + slack
        source = _stage(shape, data, pad, staged_h, row, step_h, step_w, packing)
    else:
        source = data
    weights = weight
    if form.widen:
        weights = te.compute(
            packing.packed_shape, lambda *i: weight(*i).astype(packing.layout.rhs), name="widen"
        )

    r = te.reduce_axis((0, packing.tap_rows), "r")
    c = te.reduce_axis((0, packing.tap_cols), "c")
    j = te.reduce_axis((0, packing.padded_run), "j")
    panels_per_group = packing.panels // packing.groups

    def accumulate(n, y, x, o):
        group = o // (panels_per_group * lanes) * packing.group_in if packing.groups > 1 else 0
        a = source[n, y * stride_h + r * dil_h, (x * stride_w + c * dil_w) * channels + group + j]
        w = weights[o // lanes, r, c, j // depth, o % lanes, j % depth]
        return te.sum(a.astype("int32") * w.astype("int32"), axis=[r, c, j])

    acc = te.compute((shape.batch, out_h, out_w, packing.panels * lanes), accumulate, name="acc")
    dst = _dst(shape, packing, form, acc, bias, scale, args)
    return te.create_prim_func([*args, dst])


def _strides(shape: ConvShape) -> tuple[tuple[int, int], tuple[int, int]]:
    """(stride over the staged image, stride at which it is taken from the input): a 1x1 filter skips while staging."""
    if shape.kernel == (1, 1) and shape.strides != (1, 1):
        return (1, 1), shape.strides
    return shape.strides, (1, 1)


def _stage(shape, data, pad, height, row, step_h, step_w, packing):
    top, left, _, _ = shape.padding
    channels = shape.in_channels
    dtype = packing.layout.lhs
    flip = data.dtype == "int8" and dtype == "uint8"

    def operand(value):
        # vpdpbusd wants u8 on the left: s8 activations move up by 128, and the bias takes 128 * sum_k w back.
        return (value.astype("int32") + 128).astype("uint8") if flip else value.astype(dtype)

    def stage(n, h, wc):
        y = h * step_h - top
        x = wc - left * channels
        if step_w != 1:
            x = (wc // channels * step_w - left) * channels + wc % channels
        inside = []
        if top or (height - 1) * step_h - top >= shape.height:
            inside += [y >= 0, y < shape.height]
        if left or row - left * channels > shape.width * channels or step_w > 1:
            inside += [x >= 0, x < shape.width * channels]
        value = operand(data[n, y, x])
        if not inside:
            return value
        return tirx.if_then_else(tirx.all(*inside), value, operand(pad[0]))

    return te.compute((shape.batch, height, row), stage, name="stage")


def _dst(shape, packing, form, acc, bias, scale, args):
    # Groups fill whole vectors (ConvPacking merges them until they do), so accumulator o is output channel o.
    out_shape = (shape.batch, shape.out_height, shape.out_width, shape.out_channels)
    if form.out_dtype == "float32":
        return te.compute(
            out_shape,
            lambda n, y, x, o: (acc[n, y, x, o] + bias[o]).astype("float32") * scale[o],
            name="dst",
        )
    out = te.placeholder((_epilogue.REQUANTIZE_PARAMS,), "float32", name="out")
    args.append(out)
    if form.residual:
        other = te.placeholder(out_shape, form.residual, name="other")
        params = te.placeholder((_epilogue.ADD_PARAMS,), "float32", name="add")
        args.extend([other, params])

    def value(n, y, x, o):
        stage = (acc[n, y, x, o], bias[o], scale[o], out)
        if form.residual:
            q = _epilogue.requantize_add(*stage, other[n, y, x, o], params, form.residual_first)
        else:
            q = _epilogue.requantize(*stage)
        return q.astype(form.out_dtype)

    if not holds_codes(shape, packing, form):
        return te.compute(out_shape, value, name="dst")
    codes = te.compute(acc.shape, value, name="codes")
    return te.compute(out_shape, lambda *at: codes(*at), name="dst")


def holds_codes(shape: ConvShape, packing: ConvPacking, form: ConvForm) -> bool:
    """Whether whole vectors of results are held in a block `codes` first, because they stick out of the output."""
    eight_bit = form.out_dtype != "float32"
    return eight_bit and not form.residual and shape.out_channels % packing.layout.lanes != 0
