"""What turns one operator of a model into nodes of the canonical form.

A rewriter is a function of a `Call`. It is registered under the operator's type; operators of ONNX
Runtime's own domain are registered as "com.microsoft.Name".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from lowgemm.graph import Graph, Node, TensorType

# The opset whose attributes the canonical form has, and that `to_onnx` writes: the newest one that
# every engine we compare with reads.
CANONICAL_OPSET = 21


class UnsupportedForm(Exception):
    """This operator is supported, but not as this node uses it; the message says what is wrong."""


@dataclass
class Call:
    """One node of the model, its tensors translated to names of the graph that is being built.

    `types` are the output types as ONNX infers them; None where it cannot (operators outside the
    standard), for the rewriter to say.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    opset: int
    types: list[TensorType | None]
    graph: Graph
    fresh: Callable[[str], str]
    unique_name: Callable[[str], str]
    aliases: dict[str, str]

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def input(self, index: int) -> str:
        """Input `index`, "" if it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def type(self, index: int = 0) -> TensorType:
        """The type of input `index`."""
        return self.graph.types[self.inputs[index]]

    @property
    def out_type(self) -> TensorType:
        """The type of the first output."""
        found = self.types[0]
        if found is None:
            raise UnsupportedForm("the shape of its result depends on its input's values")
        return found

    def value(self, index: int) -> np.ndarray | None:
        """Input `index` if it is a constant, None if it is absent or known only at run time."""
        return self.graph.constants.get(self.input(index))

    def const(self, index: int, what: str) -> np.ndarray:
        """Input `index`, which must be a constant.

        Raises:
            UnsupportedForm: it is computed at run time.
        """
        value = self.value(index)
        if value is None:
            raise UnsupportedForm(f"{what} must be known at compile time")
        return value

    def ints(self, index: int, attribute: str, what: str) -> list[int] | None:
        """What older opsets have as `attribute` and newer ones as input `index`, or None."""
        if self.has(index):
            return [int(item) for item in self.const(index, what).reshape(-1)]
        given = self.attrs.get(attribute)
        return None if given is None else [int(item) for item in given]

    def scalar(self, index: int, attribute: str, what: str, default: float) -> float:
        """A number that older opsets give as `attribute` and newer ones as input `index`."""
        if self.has(index):
            return float(self.const(index, what).reshape(()))
        return float(self.attrs.get(attribute, default))

    def axis(self, default: int, rank: int | None = None) -> int:
        """The attribute `axis`, counted from the front."""
        rank = self.type(0).rank if rank is None else rank
        return normal_axis(int(self.attrs.get("axis", default)), rank)

    def forward(self, tensor: str) -> None:
        """Let the first output be another name of `tensor`: the node does nothing."""
        self.aliases[self.outputs[0]] = tensor

    def constant(self, value: np.ndarray, hint: str) -> str:
        """Add a constant, and return its name."""
        tensor = self.fresh(f"{self.outputs[0]}:{hint}")
        self.graph.constants[tensor] = np.ascontiguousarray(value).reshape(value.shape)
        self.graph.types[tensor] = TensorType.of(self.graph.constants[tensor])
        return tensor

    def reshaped(self, tensor: str, shape: tuple[int, ...], hint: str) -> str:
        """Constant `tensor` with another shape: itself if it has that already."""
        value = self.graph.constants[tensor]
        return tensor if value.shape == shape else self.constant(value.reshape(shape), hint)

    def temp(
        self, op: str, inputs: list[str], attrs: dict[str, Any], type_: TensorType, hint: str
    ) -> str:
        """Emit a node in between, and return its output."""
        tensor = self.fresh(f"{self.outputs[0]}:{hint}")
        self.graph.types[tensor] = type_
        name = self.unique_name(f"{self.name}/{hint}")
        self.graph.nodes.append(Node(op, inputs, [tensor], attrs, name))
        return tensor

    def emit(
        self,
        op: str,
        inputs: list[str],
        attrs: dict[str, Any] | None = None,
        type_: TensorType | None = None,
    ) -> None:
        """Emit the node that computes this call's outputs."""
        types = [type_, *self.types[1:]] if type_ is not None else self.types
        for tensor, found in zip(self.outputs, types, strict=True):
            if tensor:
                if found is None:
                    raise UnsupportedForm("the shape of its result depends on its input's values")
                self.graph.types[tensor] = found
        name = self.unique_name(self.name)
        self.graph.nodes.append(Node(op, inputs, list(self.outputs), attrs or {}, name))


Rewriter = Callable[[Call], None]
REWRITERS: dict[str, Rewriter] = {}


def rewrites(*ops: str) -> Callable[[Rewriter], Rewriter]:
    """Register a function as the rewriter of `ops`."""

    def register(function: Rewriter) -> Rewriter:
        for op in ops:
            REWRITERS[op] = function
        return function

    return register


def normal_axis(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        UnsupportedForm: there is no such axis.
    """
    if not -rank <= axis < max(rank, 1):
        raise UnsupportedForm(f"axis {axis} of a tensor with {rank} axes")
    return axis % rank if rank else 0


def canonical_attrs(op: str, given: dict[str, Any]) -> dict[str, Any]:
    """The attributes that `op` has in the canonical opset: as given, or the default it defines."""
    attrs: dict[str, Any] = {}
    for name, spec in onnx.defs.get_schema(op, CANONICAL_OPSET).attributes.items():
        if name in given:
            attrs[name] = given[name]
        elif spec.default_value.type != onnx.AttributeProto.UNDEFINED:
            attrs[name] = plain(onnx.helper.get_attribute_value(spec.default_value))
    return attrs


def refuse_newer_attributes(op: str, given: dict[str, Any], opset: int) -> None:
    """Refuse attributes that came after the canonical opset and are not left at their default.

    Raises:
        UnsupportedForm: names such an attribute.
    """
    if opset <= CANONICAL_OPSET or not onnx.defs.has(op, CANONICAL_OPSET, ""):
        return
    known = onnx.defs.get_schema(op, CANONICAL_OPSET).attributes
    for name, spec in onnx.defs.get_schema(op, opset).attributes.items():
        if name in given and name not in known:
            default = spec.default_value
            if default.type == onnx.AttributeProto.UNDEFINED or given[name] != plain(
                onnx.helper.get_attribute_value(default)
            ):
                raise UnsupportedForm(f"{name} {given[name]}")


def plain(value: Any) -> Any:
    """An attribute's value in Python types: text instead of bytes, lists instead of containers."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str | int | float | onnx.TensorProto | onnx.GraphProto):
        return value
    return [plain(item) for item in value]
