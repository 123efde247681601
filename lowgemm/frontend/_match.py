"""Helpers for finding patterns in a graph."""

import numpy as np

from lowgemm.graph import Graph, Node


class Matcher:
    """Lookups over a graph, computed once: make a new one after the graph has changed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.uses = graph.uses()

    def producer(self, tensor: str, *ops: str) -> Node | None:
        """The node that computes `tensor`, if it is one of `ops`."""
        node = self.producers.get(tensor)
        return node if node is not None and node.op in ops else None

    def only_use(self, tensor: str) -> Node | None:
        """The one node that reads `tensor`, if there is just one and it is no output."""
        users = self.uses.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.graph.outputs else None

    def is_scalar(self, tensor: str, value: float, tolerance: float = 1e-4) -> bool:
        """Whether `tensor` is a constant that holds `value` everywhere (within rounding)."""
        found = self.graph.constants.get(tensor)
        if found is None or found.size == 0 or found.dtype.kind != "f":
            return False
        return bool(np.all(np.abs(found - value) <= tolerance * max(1.0, abs(value))))

    def with_scalar(self, node: Node, value: float) -> str | None:
        """The other operand of a commutative `node` if one is a constant scalar `value`."""
        left, right = node.inputs
        if self.is_scalar(right, value):
            other, constant = left, right
        elif self.is_scalar(left, value):
            other, constant = right, left
        else:
            return None
        keeps_shape = self.graph.types[other].shape == self.graph.types[node.output].shape
        return other if keeps_shape and self.graph.constants[constant].size == 1 else None

    def dequantized_constant(self, tensor: str) -> Node | None:
        """The DequantizeLinear behind `tensor` if what it reads is all constant."""
        node = self.producer(tensor, "DequantizeLinear")
        if node is not None and all(t in self.graph.constants for t in node.inputs):
            return node
        return None
