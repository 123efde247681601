"""Kernel calls that put codes elsewhere: reshape, transpose, slice, concatenate."""

import numpy as np

from lowgemm import reference, schedules, topi
from lowgemm.graph import Node, TensorType
from lowgemm.lower._context import Context, model_order, storage_order
from lowgemm.lower._elementwise import lut
from lowgemm.lower._layout import emit_copy, loops, stored_index
from lowgemm.lower._program import Operand
from lowgemm.passes import Quantization, rescaling


def move(context: Context, node: Node) -> None:
    program, graph = context.program, context.graph
    x, out = node.inputs[0], node.outputs[0]
    types = graph.types[x], graph.types[out]
    stored = [storage_order(type_) for type_ in types]
    index = _moved(node, stored_index(types[0].shape, stored[0]), types[1].shape)
    arrived = index.transpose(stored[1])
    target = context.declare(out)
    free = x not in program.inputs and out not in program.outputs
    if free and np.array_equal(arrived.reshape(-1), np.arange(types[0].size)):
        program.aliases[out] = program.resolve(x)
        return
    source = program.operand(x)
    if (
        loops(arrived) is None
    ):  # a nest of loops goes through the model's order, and another from there on
        plain = f"{out}/plain"
        program.declare(plain, types[1].shape, types[1].dtype)
        emit_copy(context, source, program.operand(plain), index, node.name)
        source, arrived = (
            program.operand(plain),
            stored_index(types[1].shape, model_order(types[1])),
        )
        arrived = arrived.transpose(stored[1])
    emit_copy(context, source, target, arrived, node.name)


def _moved(node: Node, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What the node makes of an array of positions: an array of the result's `shape`."""
    if node.attrs["op"] in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
        return index.reshape(shape)
    moving = Node(node.attrs["op"], node.inputs, node.outputs, node.attrs)
    return reference.evaluate(moving, [index])[0]


def concat(context: Context, node: Node) -> None:
    program, graph, attrs = context.program, context.graph, node.attrs
    logical = graph.types[node.outputs[0]].shape
    axis = int(attrs.get("axis", 1)) % len(logical)
    axis = storage_order(graph.types[node.outputs[0]]).index(axis)
    out = context.declare(node.outputs[0])
    inner = int(np.prod(out.shape[axis + 1 :]))
    rows = int(np.prod(out.shape[:axis]))
    out_run, offset = out.shape[axis] * inner, 0
    for index, (tensor, source) in enumerate(zip(node.inputs, attrs["in"], strict=True)):
        if source != attrs["out"]:
            tensor = _rescale(context, tensor, source, attrs["out"], f"{node.name}/{index}")
        part = program.operand(tensor)
        run = part.shape[axis] * inner
        key = (rows, run, out_run, offset, out.dtype)
        symbol = program.kernel(
            "copy",
            key,
            lambda key=key, run=run: schedules.schedule_copy(topi.copy_into(*key), run),
        )
        args = [
            Operand(part.name, (rows, run), out.dtype),
            Operand(out.name, (rows, out_run), out.dtype),
        ]
        program.call(symbol, args, node.name, f"qconcat_{context.target.level}")
        offset += run


def _rescale(
    context: Context, tensor: str, source: Quantization, out: Quantization, name: str
) -> str:
    """`tensor` with other quantization parameters, by a table."""
    fresh = f"{tensor}/{name}"
    context.graph.types[fresh] = TensorType(context.graph.types[tensor].shape, out.dtype)
    lut(context, Node("QLut", [tensor], [fresh], rescaling(source, out), name))
    return fresh
