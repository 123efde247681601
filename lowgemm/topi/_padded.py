"""The copy of a convolution's input that kernels read."""

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from lowgemm.packing import ConvShape
from lowgemm.topi._blocks import block, image_axes


def padded_input(
    shape: ConvShape, data: te.Tensor, pad: te.Tensor, extents: tuple, dtype: str
) -> te.Tensor:
    """The block `stage`: the input with its padding as operands of `dtype`.

    `extents` are those of [planes,] rows and elements in a row.
    """
    left = shape.columns.before * shape.in_channels
    used, row = shape.width * shape.in_channels, extents[-1]
    axes = image_axes(shape)

    def place(*at):
        *outer, element = at
        source, inside = [], []
        for axis, extent, index in zip(axes, extents[:-1], outer, strict=True):
            source.append(index - axis.before)
            if axis.before or extent - axis.before > axis.size:
                inside += _within(source[-1], axis.size)
        source.append(element - left)
        if left or row - left > used:
            inside += _within(source[-1], used)
        return source, inside

    return _copy(shape, data, pad, extents, dtype, place)


def joined_input(
    shape: ConvShape, data: te.Tensor, pad: te.Tensor, extents: tuple, dtype: str
) -> te.Tensor:
    """The block `stage`: the pixels that a filter of one tap takes, those of an image in one row, as operands of
    `dtype`.

    `extents` are those of [planes,] one row, and elements in it.
    """
    channels, width = shape.in_channels, shape.out_width
    pixels = shape.out_height * width

    def place(*at):
        *plane, _, element = at
        pixel = element // channels
        axes = [*image_axes(shape), shape.columns]
        outputs = [*plane, pixel // width, pixel % width]
        source, inside = [], []
        if extents[-1] > pixels * channels:
            inside.append(pixel < pixels)
        for axis, output in zip(axes, outputs, strict=True):
            source.append(output * axis.stride - axis.before)
            if axis.before or (axis.out - 1) * axis.stride - axis.before >= axis.size:
                inside += _within(source[-1], axis.size)
        source[-1] = source[-1] * channels + element % channels
        return source, inside

    return _copy(shape, data, pad, extents, dtype, place)


def _within(index, size: int) -> list:
    return [index >= 0, index < size]


def _copy(
    shape: ConvShape,
    data: te.Tensor,
    pad: te.Tensor,
    extents: tuple,
    dtype: str,
    place: Callable[..., tuple[list[Any], list[Any]]],
) -> te.Tensor:
    """A block of the input's elements; `place` says where each lies in an image, and the conditions that it does."""
    flip = data.dtype == "int8" and dtype == "uint8"

    def operand(value):
        # vpdpbusd wants u8 on the left: s8 activations move up by 128, and the bias takes 128 * sum_k w back.
        return (value.astype("int32") + 128).astype("uint8") if flip else value.astype(dtype)

    def stage(*at):
        n, *element = at
        source, inside = place(*element)
        value = operand(data(n, *source))
        if not inside:
            return value
        return tirx.if_then_else(tirx.all(*inside), value, operand(pad[0]))

    return block("stage", "n d h wc", (shape.batch, *extents), stage)
