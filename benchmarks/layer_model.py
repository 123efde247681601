"""A layer as a quantized ONNX model."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.layers import Layer


def to_onnx(layer: Layer) -> onnx.ModelProto:
    """The layer as a QDQ model from uint8 `x` to uint8 `y`."""
    data = layer.data
    weight = data.weight
    if layer.is_gemm:
        weight = np.ascontiguousarray(weight.T)
    constants = {
        "x_scale": np.float32(data.x_scale),
        "x_zero_point": np.uint8(data.x_zero_point),
        "w": weight,
        "w_scale": data.scales,
        "w_zero_point": np.zeros(layer.out_channels, np.int8),
        "b": data.bias,
        "b_scale": np.float32(data.x_scale) * data.scales,
        "b_zero_point": np.zeros(layer.out_channels, np.int32),
        "y_scale": np.float32(data.out_scale),
        "y_zero_point": np.uint8(data.out_zero_point),
    }

    def dequantize(name: str, axis: int) -> onnx.NodeProto:
        names = [name, f"{name}_scale", f"{name}_zero_point"]
        return helper.make_node("DequantizeLinear", names, [f"{name}_float"], axis=axis)

    operands = ["x_float", "w_float", "b_float"]
    if layer.is_gemm:
        product = helper.make_node("Gemm", operands, ["y_float"])
    else:
        product = helper.make_node(
            "Conv",
            operands,
            ["y_float"],
            kernel_shape=layer.kernel,
            strides=layer.strides,
            pads=layer.pads,
            dilations=layer.dilations,
            group=layer.groups,
        )
    nodes = [
        dequantize("x", 0),
        dequantize("w", 1 if layer.is_gemm else 0),
        dequantize("b", 0),
        product,
        helper.make_node("QuantizeLinear", ["y_float", "y_scale", "y_zero_point"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, data.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, layer.out_shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
