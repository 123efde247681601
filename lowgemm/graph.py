"""The graph that every stage hands to the next: ONNX operators over tensors of known shapes.

A tensor is a name. It is a graph input, a constant or the output of exactly one node, and `types`
knows every one of them.
`""` stands for an absent optional input, as in ONNX.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowgemm.errors import ModelError


@dataclass(frozen=True)
class TensorType:
    """`dtype` is numpy's name of the element type: "float32", "uint8", "int8", "int64", ..."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize

    @staticmethod
    def of(array: np.ndarray) -> "TensorType":
        return TensorType(tuple(int(extent) for extent in array.shape), array.dtype.name)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass
class Node:
    """One operator: `op` is its ONNX type, `name` (unique) is for messages and profiles."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def output(self) -> str:
        """The first output: the only one of nearly all operators."""
        return self.outputs[0]


@dataclass
class Graph:
    """A whole model, or a part of one. `nodes` are in topological order."""

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def producers(self) -> dict[str, Node]:
        """tensor -> the node that computes it, for all tensors at once."""
        return {tensor: node for node in self.nodes for tensor in node.outputs if tensor}

    def uses(self) -> dict[str, list[Node]]:
        """tensor -> the nodes that read it, for all tensors at once (an unread one maps to [])."""
        users: dict[str, list[Node]] = {tensor: [] for tensor in self.types}
        for node in self.nodes:
            for tensor in dict.fromkeys(node.inputs):
                if tensor:
                    users.setdefault(tensor, []).append(node)
        return users

    def constant(self, tensor: str) -> np.ndarray | None:
        """The value of a constant tensor; None for "" and for tensors known only at run time."""
        return self.constants.get(tensor)

    def fresh_name(self, prefix: str) -> str:
        """A tensor name that is not taken: `prefix` itself if that is free."""
        name, count = prefix, 0
        while not name or name in self.types:
            count += 1
            name = f"{prefix}_{count}"
        return name

    def add_constant(self, value: np.ndarray, prefix: str = "const") -> str:
        """Add a constant under a fresh name, and return the name."""
        value = np.ascontiguousarray(value).reshape(value.shape)
        name = self.fresh_name(prefix)
        self.constants[name] = value
        self.types[name] = TensorType.of(value)
        return name

    def add_tensor(self, type_: TensorType, prefix: str = "tensor") -> str:
        """Declare a tensor under a fresh name for a node to compute, and return the name."""
        name = self.fresh_name(prefix)
        self.types[name] = type_
        return name

    def replace_uses(self, old: str, new: str) -> None:
        """Let every node, and the list of outputs, read `new` where it read `old`."""
        for node in self.nodes:
            node.inputs = [new if tensor == old else tensor for tensor in node.inputs]
        self.outputs = [new if tensor == old else tensor for tensor in self.outputs]

    def rename(self, old: str, new: str) -> None:
        """Give tensor `old` the free name `new` wherever it stands."""
        self.replace_uses(old, new)
        for node in self.nodes:
            node.outputs = [new if tensor == old else tensor for tensor in node.outputs]
        self.inputs = [new if tensor == old else tensor for tensor in self.inputs]
        self.types[new] = self.types.pop(old)
        if old in self.constants:
            self.constants[new] = self.constants.pop(old)

    def prune(self) -> None:
        """Remove the nodes, constants and types that no output depends on. Inputs stay."""
        live = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if live.intersection(node.outputs):
                kept.append(node)
                live.update(tensor for tensor in node.inputs if tensor)
        self.nodes = kept[::-1]
        live.update(self.inputs)
        live.update(tensor for node in self.nodes for tensor in node.outputs if tensor)
        self.constants = {name: value for name, value in self.constants.items() if name in live}
        self.types = {name: type_ for name, type_ in self.types.items() if name in live}

    def sort(self) -> None:
        """Put the nodes in topological order, keeping the present order wherever it is one.

        Raises:
            ModelError: the nodes form a cycle.
        """
        producers = self.producers()
        done: set[int] = set()
        order: list[Node] = []
        for root in self.nodes:
            # Depth first without recursion: graphs may be thousands of nodes deep.
            stack: list[tuple[Node, bool]] = [(root, False)]
            open_: set[int] = set()
            while stack:
                node, expanded = stack.pop()
                if id(node) in done:
                    continue
                if expanded:
                    done.add(id(node))
                    order.append(node)
                    continue
                if id(node) in open_:
                    raise ModelError(f"the graph has a cycle through node {node.name!r}")
                open_.add(id(node))
                stack.append((node, True))
                needed = [producers[tensor] for tensor in node.inputs if tensor in producers]
                stack.extend((other, False) for other in reversed(needed) if id(other) not in done)
        self.nodes = order

    def subgraph(self, nodes: Iterable[Node], name: str = "") -> "Graph":
        """The part that `nodes` (of this graph) form.

        Its inputs are what they read and do not compute themselves; its outputs are what is read
        outside the part or returned by the graph. Nodes, types and constants are shared with this
        graph, not copied.
        """
        chosen = {id(node) for node in nodes}
        part = [node for node in self.nodes if id(node) in chosen]
        inside = {tensor for node in part for tensor in node.outputs if tensor}
        read = [tensor for node in part for tensor in node.inputs if tensor]
        outside = {t for node in self.nodes if id(node) not in chosen for t in node.inputs}
        outside.update(self.outputs)
        inputs = dict.fromkeys(t for t in read if t not in inside and t not in self.constants)
        outputs = dict.fromkeys(t for node in part for t in node.outputs if t in outside)
        touched = {*read, *inside}
        return Graph(
            name=name or f"{self.name}_part",
            inputs=list(inputs),
            outputs=list(outputs),
            nodes=part,
            types={t: type_ for t, type_ in self.types.items() if t in touched},
            constants={t: value for t, value in self.constants.items() if t in touched},
        )

    def copy(self) -> "Graph":
        """A graph that may change without changing this one; the constants' arrays are shared."""
        return Graph(
            name=self.name,
            inputs=list(self.inputs),
            outputs=list(self.outputs),
            nodes=[
                Node(n.op, list(n.inputs), list(n.outputs), dict(n.attrs), n.name)
                for n in self.nodes
            ],
            types=dict(self.types),
            constants=dict(self.constants),
        )

    def validate(self) -> None:
        """Check what the class promises.

        Raises:
            ModelError: a tensor is read before it is computed, computed twice, or has no type; or a
                constant's array differs from its type.
        """
        for tensor in (*self.inputs, *self.outputs, *self.constants):
            if tensor not in self.types:
                raise ModelError(f"tensor {tensor!r} has no type")
        for tensor, value in self.constants.items():
            if TensorType.of(value) != self.types[tensor]:
                found = TensorType.of(value)
                raise ModelError(f"constant {tensor!r} is {found}, not {self.types[tensor]}")
        known = {*self.inputs, *self.constants}
        for node in self.nodes:
            for tensor in node.inputs:
                if tensor and tensor not in known:
                    raise ModelError(f"node {node.name!r} reads {tensor!r} before it is computed")
            for tensor in node.outputs:
                if tensor in known:
                    raise ModelError(f"node {node.name!r} computes {tensor!r} a second time")
                if tensor and tensor not in self.types:
                    raise ModelError(f"tensor {tensor!r} of node {node.name!r} has no type")
            known.update(tensor for tensor in node.outputs if tensor)
        for tensor in self.outputs:
            if tensor not in known:
                raise ModelError(f"output {tensor!r} is never computed")
