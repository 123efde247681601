"""Operators without weights on codes."""

from dataclasses import replace

from lowgemm.graph import Node
from lowgemm.passes._quantization import Quantization
from lowgemm.passes._view import View

MOVES = frozenset(
    (
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Identity"),
        *("DepthToSpace", "SpaceToDepth"),
    )
)


def operator(
    view: View, node: Node, output: str, out: Quantization, clamp: tuple[int, int]
) -> Node | None:
    """The integer operator for a float one between quantizations; None if there is none for its form."""
    # All inputs, since parameters are attributes: a constant among them is an operand that no integer operator has.
    sources = [view.dequantized(t) for t in node.inputs]
    if not sources or any(s is None for s in sources):
        return None
    tensors = [s[0] for s in sources if s]
    params = [s[1] for s in sources if s]
    attrs = {**node.attrs, "in": tuple(params), "out": out, "low": clamp[0], "high": clamp[1]}
    shapes = [view.graph.types[t].shape for t in tensors]
    op = None
    if node.op in ("Add", "Sub", "Mul") and len(tensors) == 2:
        if shapes[0] == shapes[1]:
            op = "QMul" if node.op == "Mul" else "QAdd"
            if node.op == "Sub":  # the sum with the negation, whose scale is the negated one
                attrs["in"] = (params[0], replace(params[1], scale=-params[1].scale))
        elif node.op == "Mul" and _per_channel(shapes[0], shapes[1]):
            op = "QMul"
        elif node.op == "Mul" and _per_channel(shapes[1], shapes[0]):
            op, tensors = "QMul", tensors[::-1]
            attrs["in"] = tuple(params[::-1])
    elif node.op in ("GlobalAveragePool", "AveragePool", "ReduceMean"):
        op = _average(view, node, attrs)
    elif node.op in ("GlobalMaxPool", "MaxPool") and len(shapes[0]) == 4:
        if params[0] == out and len([o for o in node.outputs if o]) == 1:
            op = "QMaxPool"
            if node.op == "GlobalMaxPool":
                attrs.update(
                    kernel_shape=shapes[0][2:],
                    strides=(1, 1),
                    pads=(0, 0, 0, 0),
                    dilations=(1, 1),
                )
    elif node.op == "Concat":
        op = "QConcat"
    elif node.op == "Resize" and params[0] == out and resizes_pixels(view, node):
        op = "QResize"
    elif node.op in MOVES and params[0] == out:
        op = "QMove"
        attrs["op"] = node.op
    if op is None:
        return None
    if op in ("QMaxPool", "QResize", "QMove", "QConcat") and clamp != out.range:
        return None
    return Node(op, tensors, [output], attrs, node.name)


def on_codes(view: View, node: Node) -> Node | None:
    """An operator of a QOperator model that works on 8-bit tensors directly."""
    if not node.inputs or view.graph.types[node.outputs[0]].dtype not in ("uint8", "int8"):
        return None
    if any(t in view.graph.constants for t in node.inputs[:1]):
        return None
    dtype = view.graph.types[node.outputs[0]].dtype
    # Where codes are only moved or compared, any parameters do, as long as they are the same on both sides.
    params = Quantization(1.0, 0, dtype)
    attrs = {**node.attrs, "in": (params,) * len(node.inputs), "out": params}
    rank = view.graph.types[node.inputs[0]].rank
    if node.op in MOVES:
        return Node(
            "QMove", node.inputs[:1], list(node.outputs), {**attrs, "op": node.op}, node.name
        )
    if node.op == "MaxPool" and rank == 4 and len([o for o in node.outputs if o]) == 1:
        return Node("QMaxPool", node.inputs[:1], node.outputs[:1], attrs, node.name)
    if node.op == "Concat" and not any(t in view.graph.constants for t in node.inputs):
        return Node("QConcat", list(node.inputs), list(node.outputs), attrs, node.name)
    if node.op == "Resize" and resizes_pixels(view, node):
        return Node("QResize", node.inputs[:1], list(node.outputs), attrs, node.name)
    return None


def _average(view: View, node: Node, attrs: dict) -> str | None:
    shape = view.graph.types[node.inputs[0]].shape
    if len(shape) != 4:
        return None
    whole = {"kernel_shape": shape[2:], "strides": (1, 1), "pads": (0, 0, 0, 0)}
    if node.op == "GlobalAveragePool":
        attrs.update(whole)
    elif node.op == "ReduceMean":
        axes = sorted(int(a) % 4 for a in node.attrs.get("axes", ()))
        if axes != [2, 3]:
            return None
        attrs.update(whole)
    elif node.attrs.get("ceil_mode") or any(d != 1 for d in node.attrs.get("dilations", (1, 1))):
        return None
    return "QAveragePool"


def resizes_pixels(view: View, node: Node) -> bool:
    """Whether a Resize takes nearest elements along the rows and columns of a map, and of nothing else."""
    before, after = (view.graph.types[t].shape for t in (node.inputs[0], node.output))
    return len(before) == 4 and before[:2] == after[:2] and node.attrs["mode"] == "nearest"


def _per_channel(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether `other` has one value per channel of `shape` `(1, c, h, w)`."""
    return len(shape) == 4 and shape[0] == 1 and other == (1, shape[1], 1, 1)
