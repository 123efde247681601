"""The walk over a model's nodes: fix shapes, fold what is constant, rewrite the rest.

Shapes are inferred node by node while walking, so a shape that is computed (Shape, Gather, Concat,
...) is a constant by the time the Reshape that needs it comes up.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from lowgemm.errors import ModelError, UnsupportedOperatorError

# Imported for what they register.
from lowgemm.frontend import _math, _nn, _qoperator, _quantize_ops, _shape  # noqa: F401
from lowgemm.frontend._inputs import input_types
from lowgemm.frontend._read import opset_of
from lowgemm.frontend._registry import (
    REWRITERS,
    Call,
    UnsupportedForm,
    plain,
    refuse_newer_attributes,
)
from lowgemm.frontend._simplify import simplify
from lowgemm.graph import Graph, Node, TensorType

_STANDARD = ("", "ai.onnx")
# Only ever folded; where they cannot be, because an operator before them is not supported, the
# message about that operator says enough.
_FOLDED_ONLY = frozenset(
    (
        *("ConstantOfShape", "EyeLike", "If", "Loop", "NonZero", "OneHot", "Range", "Scan"),
        *("Shape", "Size", "Unique", "ConcatFromSequence", "SequenceAt", "SequenceConstruct"),
        "SplitToSequence",
    )
)
# Weights stay integers behind their DequantizeLinear; random numbers are not constants.
_NEVER_FOLDED = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    )
)
_DTYPES = frozenset(
    (
        *("bool", "float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
)
# A constant larger than this never is a shape, a list of axes or the like.
_MOST_SHAPE_ITEMS = 1024


def import_model(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> Graph:
    """Translate a model that `read_model` returned. See `lowgemm.frontend.load_onnx`."""
    importer = _Importer(model)
    importer.declare_inputs(shapes)
    importer.walk(model.graph)
    importer.raise_unsupported()
    importer.finish_outputs()
    graph = importer.graph
    simplify(graph)
    graph.validate()
    _check_types(graph)
    _refuse_empty(graph)
    return graph


def _refuse_empty(graph: Graph) -> None:
    """Refuse operators that read or make a tensor without elements: kernels have at least one."""
    for node in graph.nodes:
        for tensor in (*node.inputs, *node.outputs):
            if tensor and graph.types[tensor].size == 0:
                raise UnsupportedOperatorError(
                    f"not supported: {node.op} in node {node.name!r} with {tensor!r}, which has no elements"
                    f" ({graph.types[tensor]})"
                )


def _check_types(graph: Graph) -> None:
    """Refuse element types that nothing here computes with."""
    strange = {t: type_.dtype for t, type_ in graph.types.items() if type_.dtype not in _DTYPES}
    if strange:
        tensor, dtype = next(iter(strange.items()))
        raise UnsupportedOperatorError(
            f"{dtype} elements are not supported (tensor {tensor!r}): convert the model to float32"
        )


class _Importer:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = opset_of(model)
        self.graph = Graph(model.graph.name or "model")
        self.aliases: dict[str, str] = {}
        self.reserved = _all_names(model.graph)
        self.node_names: set[str] = set()
        self.unknown: set[str] = set()  # tensors behind an operator that is not supported
        self.unsupported: dict[str, list[str]] = {}

    def declare_inputs(self, shapes: dict[str, tuple[int, ...]]) -> None:
        for name, type_ in input_types(self.model, shapes).items():
            self.graph.inputs.append(name)
            self.graph.types[name] = type_

    def walk(self, part: onnx.GraphProto) -> None:
        for tensor in part.initializer:
            self.set_constant(tensor.name, _array(tensor, tensor.name))
        if part.sparse_initializer:
            raise UnsupportedOperatorError("sparse weights are not supported: make them dense")
        for proto in part.node:
            self.visit(proto)

    def visit(self, proto: onnx.NodeProto) -> None:
        domain = "" if proto.domain in _STANDARD else proto.domain
        key = f"{domain}.{proto.op_type}" if domain else proto.op_type
        name = proto.name or proto.op_type + ":" + next((t for t in proto.output if t), "?")
        inputs = [self.resolve(tensor) for tensor in proto.input]
        if self.unknown.intersection(inputs):
            self.unknown.update(proto.output)
            if key not in REWRITERS and key not in _FOLDED_ONLY:
                self.report(key, name)
            return
        for original, tensor in zip(proto.input, inputs, strict=True):
            if tensor and tensor not in self.graph.types:
                raise ModelError(
                    f"node {name!r} ({key}) reads {original!r}, which nothing computes"
                )
        if not domain and self.fold(proto, inputs, name):
            return
        attrs = {a.name: _attribute(a, name) for a in proto.attribute}
        rewriter = REWRITERS.get(key)
        if rewriter is None:
            self.report(key, name)
            try:
                self.set_types(proto.output, self.infer(proto, inputs, name, domain))
            except ModelError:  # the first thing to say about this node is said
                self.unknown.update(proto.output)
            return
        types = self.infer(proto, inputs, name, domain)
        if types and all(type_ is not None and type_.size == 0 for type_ in types):
            # Nothing to compute; a Concat of it with something drops it.
            for tensor, type_ in zip(proto.output, types, strict=True):
                if tensor and type_ is not None:
                    self.set_constant(tensor, np.zeros(type_.shape, type_.dtype))
            return
        call = Call(
            key, name, inputs, list(proto.output), attrs, self.opset, types, self.graph,
            self.fresh, self.unique_name, self.aliases,
        )  # fmt: skip
        try:
            if not domain:
                refuse_newer_attributes(proto.op_type, attrs, self.opset)
            rewriter(call)
        except UnsupportedForm as form:
            self.report(f"{key} ({form})", name)
            self.set_types(proto.output, types)

    # -- constants ---------------------------------------------------------------------------------

    def fold(self, proto: onnx.NodeProto, inputs: list[str], name: str) -> bool:
        """Compute the node now if that can be done."""
        op = proto.op_type
        constants = self.graph.constants
        if op == "Shape":
            shape = np.array(self.graph.types[inputs[0]].shape, np.int64)
            bounds = {a.name: a.i for a in proto.attribute}
            self.set_constant(proto.output[0], shape[bounds.get("start", 0) : bounds.get("end")])
            return True
        if op == "Size":
            size = self.graph.types[inputs[0]].size
            self.set_constant(proto.output[0], np.array(size, np.int64))
            return True
        if op == "If" and inputs[0] in constants:
            self.inline_branch(proto, bool(constants[inputs[0]].reshape(())))
            return True
        if op in _NEVER_FOLDED or any(tensor and tensor not in constants for tensor in inputs):
            return False
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in proto.attribute):
            return False
        for tensor, value in zip(proto.output, self.evaluate(proto, inputs, name), strict=False):
            if tensor:
                self.set_constant(tensor, np.asarray(value))
        return True

    def evaluate(self, proto: onnx.NodeProto, inputs: list[str], name: str) -> Iterable[Any]:
        given = {
            original: self.graph.constants[tensor]
            for original, tensor in zip(proto.input, inputs, strict=True)
            if original
        }
        helper = onnx.helper
        part = helper.make_graph(
            [proto],
            "constant",
            [
                helper.make_tensor_value_info(
                    key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for key, value in given.items()
            ],
            [onnx.ValueInfoProto(name=tensor) for tensor in proto.output if tensor],
        )
        model = helper.make_model(part, opset_imports=self.model.opset_import)
        try:
            computed = ReferenceEvaluator(model).run(None, given)
        except Exception as error:
            raise ModelError(f"node {name!r} ({proto.op_type}): {_line(error)}") from None
        values = iter(computed if isinstance(computed, list | tuple) else [computed])
        return [next(values) if tensor else None for tensor in proto.output]

    def inline_branch(self, proto: onnx.NodeProto, condition: bool) -> None:
        wanted = "then_branch" if condition else "else_branch"
        branch = next(a.g for a in proto.attribute if a.name == wanted)
        self.reserved |= _all_names(branch)
        self.walk(branch)
        for outer, inner in zip(proto.output, branch.output, strict=True):
            if self.resolve(inner.name) in self.unknown:
                self.unknown.add(outer)
            else:
                self.aliases[outer] = self.resolve(inner.name)

    def set_constant(self, name: str, value: np.ndarray) -> None:
        self.graph.constants[name] = value
        self.graph.types[name] = TensorType.of(value)

    # -- types -------------------------------------------------------------------------------------

    def infer(
        self, proto: onnx.NodeProto, inputs: list[str], name: str, domain: str
    ) -> list[TensorType | None]:
        """The types of the node's outputs, as far as the ONNX standard defines its operator."""
        unknown: list[TensorType | None] = [None] * len(proto.output)
        if domain or not onnx.defs.has(proto.op_type, self.opset, ""):
            return unknown
        schema = onnx.defs.get_schema(proto.op_type, self.opset, "")
        types, data = {}, {}
        for original, tensor in zip(proto.input, inputs, strict=True):
            if not original:
                continue
            types[original] = _type_proto(self.graph.types[tensor])
            value = self.graph.constants.get(tensor)
            if value is not None and value.size <= _MOST_SHAPE_ITEMS:
                data[original] = onnx.numpy_helper.from_array(value, original)
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, proto, types, data, opset_imports=list(self.model.opset_import)
            )
        except Exception as error:
            raise ModelError(f"node {name!r} ({proto.op_type}): {_line(error)}") from None
        return [_tensor_type(found[tensor]) if tensor in found else None for tensor in proto.output]

    def set_types(self, tensors: Iterable[str], types: list[TensorType | None]) -> None:
        """Go on behind a node that is not supported, to find the others, as far as types allow."""
        for tensor, type_ in zip(tensors, types, strict=True):
            if type_ is None:
                self.unknown.add(tensor)
            elif tensor:
                self.graph.types[tensor] = type_

    # -- names -------------------------------------------------------------------------------------

    def resolve(self, tensor: str) -> str:
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor

    def fresh(self, prefix: str) -> str:
        name, count = prefix, 0
        while name in self.reserved:
            count += 1
            name = f"{prefix}_{count}"
        self.reserved.add(name)
        return name

    def unique_name(self, prefix: str) -> str:
        name, count = prefix, 0
        while name in self.node_names:
            count += 1
            name = f"{prefix}_{count}"
        self.node_names.add(name)
        return name

    # -- the end -----------------------------------------------------------------------------------

    def report(self, what: str, name: str) -> None:
        self.unsupported.setdefault(what, []).append(name)

    def raise_unsupported(self) -> None:
        if not self.unsupported:
            return
        parts = []
        for what, names in self.unsupported.items():
            shown = ", ".join(repr(name) for name in names[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{what} in node{'s' if len(names) > 1 else ''} {shown}{more}")
        raise UnsupportedOperatorError(f"not supported: {'; '.join(parts)}")

    def finish_outputs(self) -> None:
        """Let the graph's outputs have the model's names, each computed by a node of its own."""
        graph = self.graph
        wanted = [output.name for output in self.model.graph.output]
        computed = set(graph.producers())
        for name in wanted:
            tensor = self.resolve(name)
            if tensor not in graph.types:
                raise ModelError(f"nothing computes the model's output {name!r}")
            if tensor == name and name in computed:
                continue
            if tensor in computed and tensor not in wanted:
                graph.rename(tensor, name)
                self.aliases.pop(name, None)
                self.aliases[tensor] = name
            else:
                source = tensor
                if tensor == name:  # a constant or an input under the output's own name
                    if name in graph.inputs:
                        raise ModelError(f"the model's output {name!r} is its input: nothing to do")
                    source = graph.add_constant(graph.constants.pop(name), f"{name}:value")
                graph.types[name] = graph.types[source]
                graph.nodes.append(Node("Identity", [source], [name], {}, self.unique_name(name)))
            computed.add(name)
        graph.outputs = wanted


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.input)
        names.update(node.output)
    return names


def _array(tensor: onnx.TensorProto, name: str) -> np.ndarray:
    try:
        return onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelError(f"the constant {name!r} is damaged: {_line(error)}") from None


def _attribute(attribute: onnx.AttributeProto, node: str) -> Any:
    try:
        return plain(onnx.helper.get_attribute_value(attribute))
    except (
        ValueError,
        TypeError,
    ):  # no type, a type that does not exist, or one that holds no value
        raise ModelError(
            f"attribute {attribute.name!r} of node {node!r} has no value that lowgemm reads"
        ) from None


def _type_proto(type_: TensorType) -> onnx.TypeProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(type_.dtype))
    return onnx.helper.make_tensor_type_proto(element, type_.shape)


def _tensor_type(proto: onnx.TypeProto) -> TensorType | None:
    """A tensor type whose every axis is known; None for anything less."""
    if not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return None
    dims = proto.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.tensor_type.elem_type)
    return TensorType(tuple(dim.dim_value for dim in dims), dtype.name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
