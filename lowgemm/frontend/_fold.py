"""Folding constants, padding and per-channel factors into the nodes around them."""

import numpy as np

from lowgemm.frontend._match import Matcher
from lowgemm.graph import Graph, Node
from lowgemm.reference import evaluate


def fold_constants(graph: Graph) -> None:
    """Compute what is constant, and move layout changes of quantized weights into the weights.

    A DequantizeLinear of a constant stays, so that the weights stay integers.
    """
    match = Matcher(graph)
    kept: list[Node] = []
    for node in graph.nodes:
        if node.op != "DequantizeLinear" and _is_constant(graph, node):
            values = evaluate(node, [graph.constants.get(tensor) for tensor in node.inputs])
            for tensor, value in zip(node.outputs, values, strict=True):
                if tensor in graph.outputs:  # an output is always computed by a node
                    kept.append(_identity(graph, node, tensor, value))
                elif tensor:
                    graph.constants[tensor] = value
            continue
        _fold_into_quantized_weight(match, node)
        kept.append(node)
    graph.nodes = kept


def _is_constant(graph: Graph, node: Node) -> bool:
    if node.op == "Identity":
        return False
    return all(tensor in graph.constants for tensor in node.inputs if tensor)


def _identity(graph: Graph, node: Node, tensor: str, value: np.ndarray) -> Node:
    return Node("Identity", [graph.add_constant(value, f"{tensor}:value")], [tensor], {}, node.name)


def _fold_into_quantized_weight(match: Matcher, node: Node) -> None:
    """Let `node` become the DequantizeLinear of a transposed, reshaped or scaled weight."""
    graph = match.graph
    if node.op not in ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Mul"):
        return
    source = match.dequantized_constant(node.inputs[0])
    if source is None:
        return
    weight, scale = (graph.constants[tensor] for tensor in source.inputs[:2])
    attrs = dict(source.attrs)
    names = list(source.inputs)
    if node.op == "Mul":
        factor = graph.constants.get(node.inputs[1])
        if factor is None or factor.size != 1 or factor.dtype != np.float32 or factor.ndim:
            return
        # scale * factor is rounded once more than (q * scale) * factor: within float rounding.
        names[1] = graph.add_constant(scale * factor, f"{names[1]}:scaled")
    else:
        moved = evaluate(node, [weight])[0]
        if scale.ndim:
            axis = _follow_axis(node, attrs["axis"], weight.shape, moved.shape)
            if axis is None:
                return
            attrs["axis"] = axis
        names[0] = graph.add_constant(moved, f"{names[0]}:{node.op.lower()}")
    node.op, node.inputs, node.attrs = "DequantizeLinear", names, attrs


def _follow_axis(
    node: Node, axis: int, before: tuple[int, ...], after: tuple[int, ...]
) -> int | None:
    """Where `axis` of a tensor is after a change of layout; None if it is no axis any more."""
    if node.op == "Transpose":
        return node.attrs["perm"].index(axis)
    outer = int(np.prod(before[:axis]))
    for position, extent in enumerate(after):
        if extent == before[axis] and int(np.prod(after[:position])) == outer:
            return position
    return None


def fold_padding(graph: Graph) -> None:
    """Let convolutions and pools do the padding before them, also if it is quantized in between."""
    match = Matcher(graph)
    for pad in [node for node in graph.nodes if node.op == "Pad"]:
        target = _behind_same_quantization(match, pad)
        users = match.uses[target]
        if not users or target in graph.outputs:
            continue
        merged = [_merged_window(pad, user, target) for user in users]
        if any(attrs is None for attrs in merged):
            continue
        for user, attrs in zip(users, merged, strict=True):
            user.inputs[0], user.attrs = pad.inputs[0], attrs or {}
        match = Matcher(graph)


def _behind_same_quantization(match: Matcher, pad: Node) -> str:
    """The padded tensor; if it is only quantized and dequantized again as its input was, the result
    of that, which is the same tensor: padding with 0 is exact in the integers."""
    before = match.producer(pad.inputs[0], "DequantizeLinear")
    quantize = match.only_use(pad.output)
    if before is None or quantize is None or quantize.op != "QuantizeLinear":
        return pad.output
    after = match.only_use(quantize.output)
    if after is None or after.op != "DequantizeLinear":
        return pad.output
    if any(_parameters(match, node) != _parameters(match, before) for node in (quantize, after)):
        return pad.output
    return after.output if _parameters(match, before) is not None else pad.output


def _parameters(match: Matcher, node: Node) -> tuple | None:
    """Scale, zero point and integer type of a (de)quantization with constant scalars."""
    scale, zero = (match.graph.constants.get(tensor) for tensor in node.inputs[1:])
    if scale is None or zero is None or scale.ndim:
        return None
    return float(scale), int(zero), zero.dtype.name


def _merged_window(pad: Node, user: Node, tensor: str) -> dict | None:
    """The attributes with which `user` pads by itself; None if it cannot."""
    filler = {"Conv": 0.0, "AveragePool": 0.0, "MaxPool": -np.inf}.get(user.op)
    if filler is None or pad.attrs["mode"] != "constant" or pad.attrs["value"] != filler:
        return None
    if user.inputs.count(tensor) != 1 or user.inputs[0] != tensor:
        return None
    pads = pad.attrs["pads"]
    rank = len(pads) // 2
    outside = [*pads[:2], *pads[rank : rank + 2]]
    inside = [*pads[2:rank], *pads[rank + 2 :]]
    if any(outside) or any(item < 0 for item in inside) or user.attrs.get("ceil_mode"):
        return None
    own = user.attrs["pads"]
    attrs = {**user.attrs, "pads": [a + b for a, b in zip(own, inside, strict=True)]}
    if user.op == "AveragePool":
        if any(own) and not user.attrs["count_include_pad"]:
            return None  # the pool counted one part of its padding and not the other
        attrs["count_include_pad"] = 1
    if user.op != "Conv":
        kernel = user.attrs["kernel_shape"]
        if any(item >= k for item, k in zip(attrs["pads"], kernel * 2, strict=True)):
            return None
    return attrs


def fold_scale_and_shift(graph: Graph) -> None:
    """Fold Mul, Div, Add and Sub with one constant a channel into the float weights before them.

    This is where batch normalization goes. Quantized weights are left alone.
    """
    match = Matcher(graph)
    for node in list(graph.nodes):
        if node.op not in ("Mul", "Div", "Add", "Sub"):
            continue
        for index in (0, 1) if node.op in ("Mul", "Add") else (0,):
            if _fold_one(match, node, index):
                match = Matcher(graph)
                break


def _fold_one(match: Matcher, node: Node, index: int) -> bool:
    graph = match.graph
    source = match.producer(node.inputs[index], "Conv", "ConvTranspose", "Gemm")
    if source is None or match.only_use(source.output) is not node:
        return False
    if graph.types[source.output] != graph.types[node.output]:
        return False
    value = graph.constants.get(node.inputs[1 - index])
    weight = graph.constants.get(source.inputs[1])
    bias = graph.constants.get(source.inputs[2]) if len(source.inputs) > 2 else None
    if value is None or weight is None or weight.dtype.kind != "f":
        return False
    if len(source.inputs) > 2 and bias is None:
        return False
    type_ = graph.types[source.output]
    axis = type_.rank - 1 if source.op == "Gemm" else 1
    channels = type_.shape[axis]
    wide = (1,) * (type_.rank - value.ndim) + value.shape
    if value.size not in (1, channels) or (value.size > 1 and wide[axis] != channels):
        return False
    factor, shift = np.ones(channels), np.zeros(channels)
    per_channel = np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,))
    if node.op == "Mul":
        factor = per_channel
    elif node.op == "Div":
        factor = 1 / per_channel
    else:
        shift = per_channel if node.op == "Add" else -per_channel
    if node.op in ("Mul", "Div"):
        scaled = weight * _for_weight(source, weight, factor)
        source.inputs[1] = graph.add_constant(
            scaled.astype(weight.dtype), f"{source.inputs[1]}:scaled"
        )
    old = np.zeros(channels) if bias is None else bias.astype(np.float64)
    new = (old * factor + shift).astype(weight.dtype)
    if bias is not None or node.op in ("Add", "Sub"):
        name = graph.add_constant(new, f"{source.output}:bias")
        source.inputs = [*source.inputs[:2], name]
    # The folded node takes the place of both, and the name of its output.
    _replace(graph, source, node)
    return True


def _for_weight(source: Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """One factor a channel, shaped to broadcast with the weight."""
    if source.op == "Conv":
        return factor.reshape(-1, *[1] * (weight.ndim - 1))
    if source.op == "Gemm":
        return factor.reshape(1, -1)
    # ConvTranspose [in, out / group, ...]: the input channels of a group meet its outputs.
    group = source.attrs["group"]
    rows = factor.reshape(group, -1).repeat(weight.shape[0] // group, axis=0)
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))


def _replace(graph: Graph, source: Node, node: Node) -> None:
    source.outputs = list(node.outputs)
    graph.nodes.remove(node)
