"""The copy of a convolution's input that kernels read."""

from tvm import te, tirx

from lowgemm.packing import ConvShape
from lowgemm.topi._blocks import block, image_axes


def padded_input(
    shape: ConvShape, data: te.Tensor, pad: te.Tensor, extents: tuple, steps: tuple, dtype: str
) -> te.Tensor:
    """The block `stage`: the input with its padding as operands of `dtype`.

    `extents` are those of [planes,] rows and elements in a row, `steps` the strides (planes, rows, columns) at which
    pixels are taken.
    """
    left, width = shape.columns.before, shape.width
    channels = shape.in_channels
    flip = data.dtype == "int8" and dtype == "uint8"
    axes = image_axes(shape)
    row, step_w = extents[-1], steps[-1]

    def operand(value):
        # vpdpbusd wants u8 on the left: s8 activations move up by 128, and the bias takes 128 * sum_k w back.
        return (value.astype("int32") + 128).astype("uint8") if flip else value.astype(dtype)

    def stage(*at):
        n, *outer, wc = at
        source, inside = [], []
        for axis, extent, step, index in zip(
            axes, extents[:-1], steps[-len(extents) : -1], outer, strict=True
        ):
            y = index * step - axis.before
            source.append(y)
            if axis.before or (extent - 1) * step - axis.before >= axis.size:
                inside += [y >= 0, y < axis.size]
        x = wc - left * channels
        if step_w != 1:
            x = (wc // channels * step_w - left) * channels + wc % channels
        if left or row - left * channels > width * channels or step_w > 1:
            inside += [x >= 0, x < width * channels]
        value = operand(data(n, *source, x))
        if not inside:
            return value
        return tirx.if_then_else(tirx.all(*inside), value, operand(pad[0]))

    return block("stage", "n d h wc", (shape.batch, *extents), stage)
