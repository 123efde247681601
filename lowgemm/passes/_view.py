"""Reading a graph: what its tensors are in terms of codes, scales and zero points."""

import numpy as np

from lowgemm.graph import Graph, Node
from lowgemm.passes._quantization import Quantization


class View:
    """Lookups over a graph, computed once: make a new one after the graph has changed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.uses = graph.uses()

    def params(self, node: Node) -> Quantization | None:
        """Per-tensor parameters of a QuantizeLinear or DequantizeLinear node.

        None if they are per channel or not constant, or if the scale is not positive: then codes have no order.
        """
        scale = self.graph.constant(node.inputs[1])
        if scale is None or scale.size != 1:
            return None
        dtype = "uint8"
        point = 0
        if len(node.inputs) > 2 and node.inputs[2]:
            value = self.graph.constant(node.inputs[2])
            if value is None or value.size != 1:
                return None
            point, dtype = int(value.reshape(-1)[0]), value.dtype.name
        elif node.op == "DequantizeLinear":
            dtype = self.graph.types[node.inputs[0]].dtype
        if dtype not in ("uint8", "int8") or scale.dtype != np.float32 or not np.all(scale > 0):
            return None
        return Quantization(float(scale.reshape(-1)[0]), point, dtype)

    def dequantized(self, tensor: str) -> tuple[str, Quantization] | None:
        """(quantized tensor, parameters) if `tensor` is a dequantized activation."""
        node = self.producers.get(tensor)
        if node is None or node.op != "DequantizeLinear" or node.inputs[0] in self.graph.constants:
            return None
        params = self.params(node)
        return (node.inputs[0], params) if params else None

    def weight(self, tensor: str) -> tuple[np.ndarray, np.ndarray, int] | None:
        """(int8 values with zero point 0, scale per channel or of size 1, axis) of a constant quantized weight."""
        node = self.producers.get(tensor)
        if node is None or node.op != "DequantizeLinear" or node.attrs.get("block_size"):
            return None
        value, scale = self.graph.constant(node.inputs[0]), self.graph.constant(node.inputs[1])
        if value is None or scale is None or value.dtype not in (np.int8, np.uint8):
            return None
        axis = int(node.attrs.get("axis", 1)) % value.ndim
        shape = [1] * value.ndim
        if scale.size > 1:
            shape[axis] = -1
        centred = value.astype(np.int32)
        if len(node.inputs) > 2 and node.inputs[2]:
            point = self.graph.constant(node.inputs[2])
            if point is None:
                return None
            centred = centred - (
                point.astype(np.int32).reshape(shape if point.size > 1 else [1] * value.ndim)
            )
        if centred.min() < -128 or centred.max() > 127:
            return None
        return centred.astype(np.int8), scale.reshape(-1).astype(np.float32), axis

    def real_constant(self, tensor: str) -> np.ndarray | None:
        """The float value of a constant, or of a dequantized constant."""
        if tensor in self.graph.constants:
            return self.graph.constants[tensor].astype(np.float64)
        node = self.producers.get(tensor)
        if node is None or node.op != "DequantizeLinear":
            return None
        value, scale = self.graph.constant(node.inputs[0]), self.graph.constant(node.inputs[1])
        if value is None or scale is None or node.attrs.get("block_size"):
            return None
        point = (
            self.graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        )
        shape = [1] * value.ndim
        if scale.size > 1:
            shape[int(node.attrs.get("axis", 1)) % value.ndim] = -1
        centred = value.astype(np.float64) - (
            0 if point is None else point.astype(np.float64).reshape(shape)
        )
        return centred * scale.astype(np.float64).reshape(shape)

    def only_use(self, tensor: str) -> bool:
        return len(self.uses.get(tensor, ())) == 1 and tensor not in self.graph.outputs
