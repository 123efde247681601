"""A graph as an ONNX model: the canonical form's attributes become the inputs that opset 21 has."""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from lowgemm.frontend._registry import CANONICAL_OPSET
from lowgemm.graph import Graph, Node, TensorType

# What opset 21 came with.
_IR_VERSION = 10
# Attributes of the canonical form that ONNX has as inputs: in their order there, with their types.
_INPUTS: dict[str, tuple[tuple[str, type], ...]] = {
    "Clip": (("min", np.float32), ("max", np.float32)),
    "Expand": (("shape", np.int64),),
    "Reshape": (("shape", np.int64),),
    "Slice": (("starts", np.int64), ("ends", np.int64), ("axes", np.int64), ("steps", np.int64)),
    "Split": (("split", np.int64),),
    "Squeeze": (("axes", np.int64),),
    "Tile": (("repeats", np.int64),),
    "Unsqueeze": (("axes", np.int64),),
}


def export_model(graph: Graph) -> onnx.ModelProto:
    """See `lowgemm.frontend.to_onnx`."""
    graph.validate()
    exporter = _Exporter(graph)
    for node in graph.nodes:
        exporter.add(node)
    part = helper.make_graph(
        exporter.protos,
        graph.name,
        [_value_info(name, graph.types[name]) for name in graph.inputs],
        [_value_info(name, graph.types[name]) for name in graph.outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in exporter.constants.items()],
        value_info=[
            _value_info(name, type_)
            for name, type_ in graph.types.items()
            if name not in exporter.constants
            and name not in graph.inputs
            and name not in graph.outputs
        ],
    )
    opset = helper.make_opsetid("", CANONICAL_OPSET)
    return helper.make_model(
        part, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="lowgemm"
    )


def _value_info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(type_.dtype))
    return helper.make_tensor_value_info(name, element, type_.shape)


class _Exporter:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = dict(graph.constants)
        self.protos: list[onnx.NodeProto] = []
        self.taken = set(graph.types)

    def fresh(self, prefix: str) -> str:
        name, count = prefix, 0
        while name in self.taken:
            count += 1
            name = f"{prefix}_{count}"
        self.taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any, prefix: str) -> str:
        name = self.fresh(prefix)
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, node: Node) -> None:
        inputs, attrs = list(node.inputs), dict(node.attrs)
        dtype = self.graph.types[inputs[0]].dtype if inputs and inputs[0] else "float32"
        if node.op == "Silu":
            gate = self.fresh(f"{node.output}:gate")
            self.proto("Sigmoid", inputs, [gate], {}, f"{node.name}/gate")
            return self.proto("Mul", [inputs[0], gate], node.outputs, {}, node.name)
        if node.op == "Cast":
            attrs["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(attrs["to"]))
        elif node.op == "Pad":
            inputs += [
                self.constant(attrs.pop("pads"), np.int64, f"{node.output}:pads"),
                self.constant(attrs.pop("value"), dtype, f"{node.output}:value"),
            ]
        elif node.op.startswith("Reduce"):
            inputs.append(self.constant(attrs.pop("axes"), np.int64, f"{node.output}:axes"))
        elif node.op == "Resize":
            inputs += self.resize_inputs(node, attrs)
        elif node.op == "AveragePool" and set(attrs["dilations"]) == {1}:
            # ONNX Runtime 1.32 makes a QLinearAveragePool of a quantized one, copies this attribute
            # to it, and refuses the result.
            del attrs["dilations"]
        for key, kind in _INPUTS.get(node.op, ()):
            value = attrs.pop(key)
            if node.op == "Clip" and np.isinf(value):
                inputs.append("")
                continue
            wanted = dtype if node.op == "Clip" else kind
            inputs.append(self.constant(value, wanted, f"{node.output}:{key}"))
        while inputs and not inputs[-1]:
            inputs.pop()
        self.proto(node.op, inputs, node.outputs, attrs, node.name)

    def resize_inputs(self, node: Node, attrs: dict[str, Any]) -> list[str]:
        """The scales if they lead to the right shape, else the sizes."""
        scales = np.asarray(attrs.pop("scales"), np.float32)
        sizes = attrs.pop("sizes")
        shape = np.asarray(self.graph.types[node.inputs[0]].shape)
        if np.floor(shape * scales).astype(np.int64).tolist() == list(sizes):
            return ["", self.constant(scales, np.float32, f"{node.output}:scales")]
        return ["", "", self.constant(sizes, np.int64, f"{node.output}:sizes")]

    def proto(
        self, op: str, inputs: list[str], outputs: list[str], attrs: dict[str, Any], name: str
    ) -> None:
        # An empty list has no element type for make_node to see: say that these are integers.
        proto = helper.make_node(op, inputs, outputs, name=name)
        for key, value in attrs.items():
            if value is None:
                continue
            kind = onnx.AttributeProto.INTS if isinstance(value, list) and not value else None
            proto.attribute.append(helper.make_attribute(key, value, attr_type=kind))
        self.protos.append(proto)
