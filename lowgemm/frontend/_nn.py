"""Rewriters of convolutions, pools and batch normalization: windows are spelled out."""

import numpy as np

from lowgemm.frontend._registry import Call, UnsupportedForm, canonical_attrs, rewrites
from lowgemm.graph import TensorType


def window(call: Call, kernel: list[int]) -> dict[str, list[int]]:
    """The window attributes with nothing left out: kernel_shape, strides, dilations, pads.

    `pads` are all begins, then all ends; auto_pad is worked out from the input's shape.
    """
    spatial = len(kernel)
    strides = [int(item) for item in call.attrs.get("strides") or [1] * spatial]
    dilations = [int(item) for item in call.attrs.get("dilations") or [1] * spatial]
    pads = [int(item) for item in call.attrs.get("pads") or [0] * (2 * spatial)]
    mode = call.attrs.get("auto_pad", "NOTSET")
    if mode == "VALID":
        pads = [0] * (2 * spatial)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for size, k, stride, dilation in zip(
            call.type(0).shape[2:], kernel, strides, dilations, strict=True
        ):
            out = -(-size // stride)
            total = max((out - 1) * stride + dilation * (k - 1) + 1 - size, 0)
            less, more = total // 2, total - total // 2
            begins.append(less if mode == "SAME_UPPER" else more)
            ends.append(more if mode == "SAME_UPPER" else less)
        pads = begins + ends
    if any(item < 0 for item in pads):
        raise UnsupportedForm("negative padding")
    return {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}


def conv_attrs(call: Call, weight_shape: tuple[int, ...]) -> dict[str, object]:
    """Conv {kernel_shape, strides, pads, dilations, group}."""
    return {**window(call, list(weight_shape[2:])), "group": int(call.attrs.get("group", 1))}


@rewrites("Conv")
def conv(call: Call) -> None:
    inputs = [tensor for tensor in call.inputs if tensor]
    call.emit("Conv", inputs, conv_attrs(call, call.type(1).shape))


@rewrites("ConvTranspose")
def conv_transpose(call: Call) -> None:
    """ConvTranspose {kernel_shape, strides, pads, dilations, group, output_padding}."""
    kernel = list(call.type(1).shape[2:])
    plain = {key: item for key, item in call.attrs.items() if key != "auto_pad"}
    mode = call.attrs.get("auto_pad", "NOTSET")
    call.attrs = plain
    attrs: dict[str, object] = {**window(call, kernel), "group": int(plain.get("group", 1))}
    spatial = len(kernel)
    extra = [int(item) for item in plain.get("output_padding") or [0] * spatial]
    wanted = plain.get("output_shape")
    sizes = call.type(0).shape[2:]
    strides, dilations = attrs["strides"], attrs["dilations"]
    assert isinstance(strides, list) and isinstance(dilations, list)
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is not None:
        begins, ends = [], []
        for i, size in enumerate(sizes):
            full = strides[i] * (size - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1
            total = full - int(wanted[-spatial:][i])
            if total < 0:  # the result is larger than what the kernel reaches
                extra[i], total = extra[i] - total, 0
            less, more = total // 2, total - total // 2
            begins.append(less if mode == "SAME_UPPER" else more)
            ends.append(more if mode == "SAME_UPPER" else less)
        attrs["pads"] = begins + ends
    attrs["output_padding"] = extra
    channels = call.type(1).shape[1] * int(plain.get("group", 1))
    pads = attrs["pads"]
    assert isinstance(pads, list)
    out = [
        strides[i] * (size - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        - pads[i] - pads[spatial + i]
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    type_ = TensorType((call.type(0).shape[0], channels, *out), call.type(0).dtype)
    call.emit("ConvTranspose", [t for t in call.inputs if t], attrs, type_)


@rewrites("MaxPool", "AveragePool")
def pool(call: Call) -> None:
    """MaxPool/AveragePool {kernel_shape, strides, pads, dilations, ceil_mode, count_include_pad}.

    Windows over the end, which ceil_mode allows, become end padding wherever that is the same.
    """
    if any(call.outputs[1:]):
        raise UnsupportedForm("the indices as an output")
    call.outputs, call.types = call.outputs[:1], call.types[:1]
    kernel = [int(item) for item in call.attrs["kernel_shape"]]
    attrs: dict[str, object] = dict(window(call, kernel))
    ceil = int(call.attrs.get("ceil_mode", 0))
    counted = int(call.attrs.get("count_include_pad", 0))
    if ceil and not counted:
        pads = _pads_for_ceil(call, attrs)
        if pads is not None:
            attrs["pads"], ceil = pads, 0
    attrs["ceil_mode"] = ceil
    if call.op == "AveragePool":
        attrs["count_include_pad"] = counted
    call.emit(call.op, call.inputs, attrs)


def _pads_for_ceil(call: Call, attrs: dict[str, object]) -> list[int] | None:
    """The padding with which rounding down gives the shape that rounding up gave; None if a window
    would then see padding only."""
    kernel, strides, pads = attrs["kernel_shape"], attrs["strides"], attrs["pads"]
    dilations = attrs["dilations"]
    assert isinstance(kernel, list) and isinstance(strides, list)
    assert isinstance(pads, list) and isinstance(dilations, list)
    spatial, pads = len(kernel), list(pads)
    for i, (size, out) in enumerate(
        zip(call.type(0).shape[2:], call.out_type.shape[2:], strict=True)
    ):
        span = dilations[i] * (kernel[i] - 1) + 1
        needed = (out - 1) * strides[i] + span - size - pads[i]
        pads[spatial + i] = max(pads[spatial + i], needed)
        if pads[spatial + i] >= span:
            return None
    return pads


@rewrites("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> None:
    call.emit(call.op, call.inputs)


@rewrites("BatchNormalization")
def batch_normalization(call: Call) -> None:
    """Mul and Add with constants of shape `(channels, 1, ...)`; `_simplify` folds them."""
    attrs = canonical_attrs("BatchNormalization", call.attrs)
    if attrs["training_mode"]:
        raise UnsupportedForm("training mode")
    if any(call.outputs[1:]):
        raise UnsupportedForm("the statistics as outputs")
    call.outputs, call.types = call.outputs[:1], call.types[:1]
    scale, bias, mean, variance = (
        call.const(i, "scale, bias, mean and variance").astype(np.float64) for i in range(1, 5)
    )
    factor = scale / np.sqrt(variance + attrs["epsilon"])
    type_ = call.type(0)
    # Rank 2 has no axes behind the channels.
    shape = (factor.size, *[1] * max(type_.rank - 2, 0))
    mul = call.constant(factor.astype(type_.dtype).reshape(shape), "scale")
    add = call.constant((bias - mean * factor).astype(type_.dtype).reshape(shape), "shift")
    scaled = call.temp("Mul", [call.inputs[0], mul], {}, type_, "scale_by")
    call.emit("Add", [scaled, add], type_=type_)
