"""Convolutions and matrix products of codes: integer weights and bias, and one float32 factor a channel."""

import numpy as np

from lowgemm.graph import Node
from lowgemm.packing import Axis
from lowgemm.passes._quantization import Quantization
from lowgemm.passes._view import View


def convolution(
    view: View, node: Node, output: str, out: Quantization | None, clamp: tuple[int, int] | None
) -> Node | None:
    source = view.dequantized(node.inputs[0])
    weight = view.weight(node.inputs[1])
    if source is None or weight is None:
        return None
    tensor, params = source
    values, scales, axis = weight
    gemm = node.op != "Conv"
    if gemm:
        if values.ndim != 2 or (scales.size > 1 and axis != 1):
            return None
        values = values.T[:, :, None, None]
    elif values.ndim != 4 or (scales.size > 1 and axis != 0) or view.graph.types[tensor].rank != 4:
        return None
    window = {k: v for k, v in node.attrs.items() if k in ("strides", "pads", "dilations", "group")}
    if not gemm:
        values, trimmed = _trim(view.graph.types[tensor].shape[2:], values, window)
        window.update(trimmed)
    channels = values.shape[0]
    scales = np.broadcast_to(scales, (channels,)).astype(np.float64)
    product = np.float64(np.float32(params.scale)) * scales
    bias = np.zeros(channels, np.float64)
    if len(node.inputs) > 2 and node.inputs[2]:
        real = view.real_constant(node.inputs[2])
        if real is None:
            return None
        bias = np.broadcast_to(real.reshape(-1), (channels,))
    fitted = _fit_accumulator(values, bias, product, out)
    if fitted is None:
        return None
    values, rounded, product = fitted
    # In float32 and in this order, as the engines in use have it: the same ties, so the same codes.
    scale = product.astype(np.float32)
    if out is not None:
        scale = scale / np.float32(out.scale)
    attrs = {
        "gemm": gemm,
        "weight": np.ascontiguousarray(values),
        "bias": rounded.astype(np.int32),
        "scale": scale,
        "in": params,
        "out": out,
        **window,
    }
    if clamp:
        attrs.update(low=clamp[0], high=clamp[1])
    return Node("QConv", [tensor], [output], attrs, node.name)


def _trim(
    sizes: tuple[int, ...], weight: np.ndarray, window: dict
) -> tuple[np.ndarray, dict[str, tuple[int, ...]]]:
    """`weight` without rows and columns that meet nothing but padding, and the pads and dilations that go with it."""
    pads = window.get("pads", (0, 0, 0, 0))
    strides, dilations = (window.get(key, (1, 1)) for key in ("strides", "dilations"))
    axes = []
    for at, size in enumerate(sizes):
        axis = Axis(size, weight.shape[2 + at], strides[at], pads[at], pads[2 + at], dilations[at])
        weight = weight.take(axis.useful_taps, 2 + at)
        axes.append(axis.cut(axis.useful_taps))
    ends = (*(axis.before for axis in axes), *(axis.after for axis in axes))
    return weight, {"pads": ends, "dilations": tuple(axis.dilation for axis in axes)}


def _fit_accumulator(
    values: np.ndarray, bias: np.ndarray, product: np.ndarray, out: Quantization | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(weights, integer bias, scales) with which no sum can leave 32 bits; None if that would cost precision.

    A channel that training switched off has tiny weights and so a tiny scale, in which its bias is a huge integer. Such
    a channel is brought to a coarser scale: its weights are rounded again, which moves the sum by less than 1/256 of an
    output step, or it is refused.
    """
    channels = values.shape[0]
    flat = values.reshape(channels, -1).astype(np.int64)
    reach = np.abs(flat).sum(1) * 255 + np.abs(np.rint(bias / product))
    coarser = np.ceil(reach / (2**31 - 2**24))
    coarser[reach < 2**31] = 1.0
    if np.all(coarser == 1.0):
        return values, np.rint(bias / product), product
    step = out.scale if out else np.abs(bias).max() / 256
    moved = (0.5 * 255 * flat.shape[1] + 1.0) * product * coarser
    if np.any((coarser > 1.0) & (moved > step / 256)):
        return None
    scales = product * coarser
    coarse = np.rint(flat / coarser[:, None]).astype(np.int8).reshape(values.shape)
    return coarse, np.rint(bias / scales), scales
