"""Rewriters of operators on integers: DequantizeLinear -> the operator -> QuantizeLinear.

The canonical form has one way to say "int8": the passes then find the integer operators again,
whichever way a model was written.
"""

from typing import Any

import numpy as np

from lowgemm.frontend._nn import conv_attrs, window
from lowgemm.frontend._quantize_ops import with_shape
from lowgemm.frontend._registry import Call, UnsupportedForm, normal_axis, rewrites
from lowgemm.graph import TensorType


def dequantized(call: Call, index: int, hint: str, axis: int | None = None) -> str:
    """The real numbers behind input `index`, whose scale and zero point follow it."""
    return _dequantize(
        call, call.inputs[index], call.input(index + 1), call.input(index + 2), hint, axis
    )


def quantized(
    call: Call, op: str, inputs: list[str], attrs: dict[str, Any], out: TensorType, at: int
) -> None:
    """Emit `op` and the quantization of its result with the parameters at inputs `at`, `at + 1`."""
    call.name, name = f"{call.name}/quantize", call.name
    real = _named(call, name, op, inputs, attrs, TensorType(out.shape, "float32"))
    scale, zero = call.inputs[at], call.input(at + 1)
    if not zero:
        zero = call.constant(np.zeros(call.graph.types[scale].shape, out.dtype), "zero_point")
    scale, zero, axis = with_shape(call, scale, zero, out, -1)
    type_ = TensorType(out.shape, call.graph.types[zero].dtype)
    call.emit("QuantizeLinear", [real, scale, zero], axis, type_)


def _named(
    call: Call, name: str, op: str, inputs: list[str], attrs: dict[str, Any], type_: TensorType
) -> str:
    """Emit the operator itself under the model's name for it."""
    tensor = call.temp(op, inputs, attrs, type_, "real")
    call.graph.nodes[-1].name = call.unique_name(name)
    return tensor


def _dequantize(
    call: Call, x: str, scale: str, zero: str, hint: str, axis: int | None = None
) -> str:
    types = call.graph.types
    if not zero:
        zeros = np.zeros(types[scale].shape, types[x].dtype)
        zero = call.constant(zeros, f"{hint}:zero_point")
    scale, zero, attrs = with_shape(call, scale, zero, types[x], 1 if axis is None else axis)
    if types[zero].size != types[scale].size:
        raise UnsupportedForm("a scale and a zero point of different sizes")
    type_ = TensorType(types[x].shape, "float32")
    return call.temp("DequantizeLinear", [x, scale, zero], attrs, type_, hint)


def _bias(call: Call, index: int, x_scale: int, w_scale: int, factor: float = 1.0) -> str:
    """The real bias behind int32 input `index`, its scale the product of the operands'."""
    x = call.const(x_scale, "the scale of the input").astype(np.float32).reshape(())
    w = call.const(w_scale, "the scale of the weight").astype(np.float32).reshape(-1)
    channels = call.type(index).size
    bias = call.inputs[index]
    if call.type(index).rank != 1:
        if bias not in call.graph.constants:
            raise UnsupportedForm("a bias that is computed and not one number a channel")
        bias = call.reshaped(bias, (channels,), "bias")
    scale = np.broadcast_to(x * w * np.float32(factor), (channels,)).astype(np.float32)
    scale_name = call.constant(scale, "bias:scale")
    zero = call.constant(np.zeros(channels, np.int32), "bias:zero_point")
    type_ = TensorType((channels,), "float32")
    return call.temp("DequantizeLinear", [bias, scale_name, zero], {"axis": 0}, type_, "bias")


@rewrites("QLinearConv")
def qlinear_conv(call: Call) -> None:
    x = dequantized(call, 0, "x")
    w = dequantized(call, 3, "w", axis=0)
    inputs = [x, w] + ([_bias(call, 8, 1, 4)] if call.has(8) else [])
    quantized(call, "Conv", inputs, conv_attrs(call, call.type(3).shape), call.out_type, 6)


@rewrites("QLinearMatMul")
def qlinear_matmul(call: Call) -> None:
    a = dequantized(call, 0, "a", axis=max(call.type(0).rank - 2, 0))
    b = dequantized(call, 3, "b", axis=-1)
    quantized(call, "MatMul", [a, b], {}, call.out_type, 6)


@rewrites("MatMulInteger", "ConvInteger")
def integer_product(call: Call) -> None:
    """The int32 result itself: operands with scale 1, and a Cast behind."""
    product = call.op.removesuffix("Integer")
    one = call.constant(np.array(1, np.float32), "one")
    operands = []
    for index, hint in ((0, "x"), (1, "w")):
        scale, zero, axis = one, call.input(index + 2), None
        if zero and call.graph.types[zero].size > 1:
            scale = call.constant(np.ones(call.graph.types[zero].shape, np.float32), f"{hint}:ones")
            last = call.type(index).rank - 1
            axis = 0 if product == "Conv" else (last if index else last - 1)
        elif zero and call.graph.types[zero].rank:
            zero = _scalar(call, zero, f"{hint}:zero_point")
        operands.append(_dequantize(call, call.inputs[index], scale, zero, hint, axis))
    attrs = conv_attrs(call, call.type(1).shape) if product == "Conv" else {}
    type_ = TensorType(call.out_type.shape, "float32")
    call.name, name = f"{call.name}/cast", call.name
    real = _named(call, name, product, operands, attrs, type_)
    call.emit("Cast", [real], {"to": "int32"})


def _scalar(call: Call, tensor: str, hint: str) -> str:
    """A tensor of one element as a scalar, also where it is computed at run time."""
    if tensor in call.graph.constants:
        return call.reshaped(tensor, (), hint)
    type_ = TensorType((), call.graph.types[tensor].dtype)
    return call.temp("Reshape", [tensor], {"shape": []}, type_, hint)


@rewrites("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def qlinear_binary(call: Call) -> None:
    shape = np.broadcast_shapes(call.type(0).shape, call.type(3).shape)
    inputs = [dequantized(call, 0, "a"), dequantized(call, 3, "b")]
    op = call.op.rpartition("QLinear")[2]
    quantized(call, op, inputs, {}, TensorType(shape, call.type(0).dtype), 6)


@rewrites("com.microsoft.QGemm")
def qgemm(call: Call) -> None:
    trans_a, trans_b = call.attrs.get("transA", 0), call.attrs.get("transB", 0)
    alpha = float(call.attrs.get("alpha", 1.0))
    a = dequantized(call, 0, "a")
    b = dequantized(call, 3, "b", axis=0 if trans_b else 1)
    a_shape, b_shape = call.type(0).shape, call.type(3).shape
    if trans_a:
        a_shape = a_shape[::-1]
        a = call.temp("Transpose", [a], {"perm": [1, 0]}, TensorType(a_shape, "float32"), "lhs")
    if trans_b:
        b_shape = b_shape[::-1]
        b = call.temp("Transpose", [b], {"perm": [1, 0]}, TensorType(b_shape, "float32"), "rhs")
    if alpha != 1:
        factor = call.constant(np.array(alpha, np.float32), "alpha")
        b = call.temp("Mul", [b, factor], {}, TensorType(b_shape, "float32"), "scaled")
    inputs = [a, b] + ([_bias(call, 6, 1, 4, alpha)] if call.has(6) else [])
    shape = (a_shape[0], b_shape[1])
    if not call.has(7):
        return call.emit("Gemm", inputs, {}, TensorType(shape, "float32"))
    quantized(call, "Gemm", inputs, {}, TensorType(shape, call.type(0).dtype), 7)


@rewrites("com.microsoft.QLinearGlobalAveragePool")
def qlinear_global_average_pool(call: Call) -> None:
    x, type_ = dequantized(call, 0, "x"), call.type(0)
    spatial = [1] * (type_.rank - 2)
    if call.attrs.get("channels_last", 0):
        out = TensorType((type_.shape[0], *spatial, type_.shape[-1]), type_.dtype)
        attrs = {"axes": list(range(1, type_.rank - 1)), "keepdims": 1}
        return quantized(call, "ReduceMean", [x], attrs, out, 3)
    out = TensorType((*type_.shape[:2], *spatial), type_.dtype)
    quantized(call, "GlobalAveragePool", [x], {}, out, 3)


@rewrites("com.microsoft.QLinearAveragePool")
def qlinear_average_pool(call: Call) -> None:
    if call.attrs.get("channels_last", 0):
        raise UnsupportedForm("channels_last")
    type_ = call.type(0)
    kernel = [int(item) for item in call.attrs["kernel_shape"]]
    attrs: dict[str, Any] = dict(window(call, kernel))
    attrs["ceil_mode"] = int(call.attrs.get("ceil_mode", 0))
    attrs["count_include_pad"] = int(call.attrs.get("count_include_pad", 0))
    spatial = len(kernel)
    out = list(type_.shape[:2])
    for i, size in enumerate(type_.shape[2:]):
        room = size + attrs["pads"][i] + attrs["pads"][spatial + i] - kernel[i]
        stride = attrs["strides"][i]
        steps = -(-room // stride) if attrs["ceil_mode"] else room // stride
        if attrs["ceil_mode"] and steps * stride >= size + attrs["pads"][i]:
            steps -= 1  # a window that would begin behind the input does not count
        out.append(steps + 1)
    x = dequantized(call, 0, "x")
    quantized(call, "AveragePool", [x], attrs, TensorType(tuple(out), type_.dtype), 3)


@rewrites("com.microsoft.QLinearConcat")
def qlinear_concat(call: Call) -> None:
    first = call.type(2)
    axis = normal_axis(int(call.attrs["axis"]), first.rank)
    at = range(2, len(call.inputs), 3)
    parts = [dequantized(call, index, f"x{i}") for i, index in enumerate(at)]
    shape = list(first.shape)
    shape[axis] = sum(call.type(index).shape[axis] for index in at)
    quantized(call, "Concat", parts, {"axis": axis}, TensorType(tuple(shape), first.dtype), 0)


@rewrites("com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearSigmoid")
def qlinear_unary(call: Call) -> None:
    op = call.op.rpartition("QLinear")[2]
    attrs = {"alpha": float(call.attrs.get("alpha", 0.01))} if op == "LeakyRelu" else {}
    quantized(call, op, [dequantized(call, 0, "x")], attrs, call.type(0), 3)


@rewrites("com.microsoft.QLinearSoftmax")
def qlinear_softmax(call: Call) -> None:
    type_ = call.type(0)
    legacy = int(call.attrs.get("opset", 13)) < 13
    axis = normal_axis(int(call.attrs.get("axis", 1 if legacy else -1)), type_.rank)
    if legacy and any(extent > 1 for extent in type_.shape[axis + 1 :]):
        raise UnsupportedForm("softmax over several axes")
    quantized(call, "Softmax", [dequantized(call, 0, "x")], {"axis": axis}, type_, 3)
