"""Rewriters of QuantizeLinear and DequantizeLinear."""

import numpy as np

from lowgemm.frontend._registry import Call, UnsupportedForm, normal_axis, rewrites
from lowgemm.graph import TensorType
from lowgemm.quant import quantize_linear

_INTEGERS = frozenset(("uint8", "int8", "uint16", "int16", "int32"))


@rewrites("QuantizeLinear", "com.microsoft.QuantizeLinear")
def quantize(call: Call) -> None:
    """QuantizeLinear {axis where the scale has one}, with a zero point always.

    A constant is quantized at once: that is exact.
    """
    default = "uint8"
    if call.attrs.get("output_dtype"):
        default = call.out_type.dtype
    scale, zero, attrs = parameters(call, default)
    type_ = TensorType(call.type(0).shape, call.graph.types[zero].dtype)
    constants = call.graph.constants
    x = call.inputs[0]
    if all(tensor in constants for tensor in (x, scale, zero)):
        axis = attrs.get("axis")
        value = quantize_linear(constants[x], constants[scale], constants[zero], type_.dtype, axis)
        constants[call.outputs[0]] = value
        call.graph.types[call.outputs[0]] = type_
        return
    call.emit("QuantizeLinear", [x, scale, zero], attrs, type_)


@rewrites("DequantizeLinear", "com.microsoft.DequantizeLinear")
def dequantize(call: Call) -> None:
    """DequantizeLinear {axis where the scale has one}, with a zero point always."""
    scale, zero, attrs = parameters(call, call.type(0).dtype)
    type_ = TensorType(call.type(0).shape, "float32")
    call.emit("DequantizeLinear", [call.inputs[0], scale, zero], attrs, type_)


@rewrites("DynamicQuantizeLinear")
def dynamic(call: Call) -> None:
    call.emit("DynamicQuantizeLinear", call.inputs)


def parameters(call: Call, default: str) -> tuple[str, str, dict[str, int]]:
    """The scale and zero point of a (de)quantization: scalars, or along the axis in the attributes.

    Args:
        call: the node; inputs 1 and 2 are the scale and the zero point.
        default: the integer type where no zero point says it.
    """
    if call.attrs.get("block_size"):
        raise UnsupportedForm("scales for blocks")
    scale = call.inputs[1]
    type_ = call.type(1)
    if type_.dtype != "float32":
        raise UnsupportedForm(f"a {type_.dtype} scale")
    if call.has(2):
        zero, integer = call.inputs[2], call.type(2).dtype
    else:
        zero, integer = call.constant(np.zeros(type_.shape, default), "zero_point"), default
    if integer not in _INTEGERS:
        raise UnsupportedForm(f"{integer} elements")
    return with_shape(call, scale, zero, call.type(0), int(call.attrs.get("axis", 1)))


def with_shape(
    call: Call, scale: str, zero: str, data: TensorType, axis: int
) -> tuple[str, str, dict[str, int]]:
    """Make parameters of one element scalars; others belong to an axis of `data`."""
    types = call.graph.types
    if types[scale].size == 1:
        if types[scale].rank:
            if scale not in call.graph.constants or zero not in call.graph.constants:
                raise UnsupportedForm("a scale that is computed and not a scalar")
            scale = call.reshaped(scale, (), "scale")
            zero = call.reshaped(zero, (), "zero_point")
        return scale, zero, {}
    axis = normal_axis(axis, data.rank)
    if types[scale].rank != 1 or types[scale].size != data.shape[axis]:
        raise UnsupportedForm(f"{types[scale]} scales along axis {axis} of {data}")
    if types[zero].size == 1:
        value = call.const(2, "the zero point")
        zero = call.constant(np.full(types[scale].shape, value.reshape(()), value.dtype), "zeros")
    return scale, zero, {"axis": axis}
