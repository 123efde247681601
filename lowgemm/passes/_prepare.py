"""Rewriting ahead of the fusion, so that more of the graph has a form that it knows."""

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._operators import MOVES, resizes_pixels
from lowgemm.passes._view import View
from lowgemm.quant import dequantize_linear


def fold_scalars(graph: Graph) -> None:
    """DequantizeLinear of a constant with one element becomes a float constant: an operand of elementwise operators."""
    for node in list(graph.nodes):
        if node.op != "DequantizeLinear" or any(
            t and t not in graph.constants for t in node.inputs
        ):
            continue
        value, scale, *point = (graph.constants[t] for t in node.inputs if t)
        if value.size == 1 and scale.size == 1 and node.output not in graph.outputs:
            real = dequantize_linear(value, scale.reshape(()), point[0].reshape(()) if point else 0)
            graph.constants[node.output] = real.astype(np.float32).reshape(value.shape)
            graph.nodes.remove(node)


def requantize_choices(graph: Graph) -> None:
    """DequantizeLinear -> MaxPool gets the same parameters once more behind it, where others or none follow.

    What was chosen among codes is one of them, so quantizing it again changes nothing: the operator is an integer one,
    and what follows it a table.
    """
    view = View(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        source = view.producers.get(node.inputs[0]) if node.inputs else None
        if source is None or view.dequantized(node.inputs[0]) is None or not _chooses(view, node):
            continue
        if view.only_use(node.output) and _undoes(view, source, view.uses[node.output][0]):
            continue
        real = node.output
        chosen = graph.add_tensor(graph.types[real], f"{real}/chosen")
        codes = TensorType(graph.types[real].shape, graph.types[source.inputs[0]].dtype)
        coded = graph.add_tensor(codes, f"{real}/codes")
        node.outputs = [chosen, *node.outputs[1:]]
        params = _with_zero_point(graph, source)
        nodes += [
            Node("QuantizeLinear", [chosen, *params], [coded], {}, f"{node.name}/quantize"),
            Node("DequantizeLinear", [coded, *params], [real], {}, f"{node.name}/dequantize"),
        ]
    graph.nodes = nodes


def _with_zero_point(graph: Graph, node: Node) -> list[str]:
    """The parameters of a DequantizeLinear; QuantizeLinear takes the type of its codes from the zero point."""
    if len(node.inputs) > 2 and node.inputs[2]:
        return node.inputs[1:]
    point = np.zeros((), graph.types[node.inputs[0]].dtype)
    return [node.inputs[1], graph.add_constant(point, f"{node.output}/zero")]


def _chooses(view: View, node: Node) -> bool:
    """Whether every element of the result is one of the elements of the map that the node reads."""
    if node.op == "Resize":
        return resizes_pixels(view, node)
    if view.graph.types[node.inputs[0]].rank != 4 or any(node.outputs[1:]):
        return False
    return node.op == "GlobalMaxPool" or (
        node.op == "MaxPool" and _every_window_has_one(view, node)
    )


def _every_window_has_one(view: View, node: Node) -> bool:
    """Whether no window lies in the padding, whose maximum is no code but minus infinity."""
    before, after = (view.graph.types[t].shape[2:] for t in (node.inputs[0], node.output))
    for axis, (size, out) in enumerate(zip(before, after, strict=True)):
        first = np.arange(out) * node.attrs["strides"][axis] - node.attrs["pads"][axis]
        taps = np.arange(node.attrs["kernel_shape"][axis]) * node.attrs["dilations"][axis]
        inside = first[:, None] + taps
        if not np.all(np.any((inside >= 0) & (inside < size), axis=1)):
            return False
    return True


def quantize_before_moving(graph: Graph) -> None:
    """op -> Reshape -> QuantizeLinear becomes op -> QuantizeLinear -> QMove: then the operator can be an integer one.

    Data movement does not look at values, so quantizing commutes with it (if the parameters are per tensor), and so
    does a Relu or Clip on the way to the quantization.
    """
    _clamp_before_moving(graph)
    while _quantize_before_one_move(graph):
        pass


def _clamp_before_moving(graph: Graph) -> None:
    """op -> Reshape -> Relu becomes op -> Relu -> Reshape."""
    for node in list(graph.nodes):
        while node.op in ("Relu", "Clip"):
            move = graph.producers().get(node.inputs[0])
            if move is None or move.op not in MOVES or not View(graph).only_use(move.output):
                break
            # The two change places in the list as well: each takes over what the other was.
            clamped = graph.add_tensor(graph.types[move.inputs[0]], f"{node.output}/unmoved")
            kept = (move.op, move.attrs, move.name)
            move.op, move.attrs, move.name = node.op, node.attrs, node.name
            node.op, node.attrs, node.name = kept
            move.outputs, node.inputs = [clamped], [clamped]
            node = move


def _quantize_before_one_move(graph: Graph) -> bool:
    view = View(graph)
    for index, node in enumerate(graph.nodes):
        if node.op != "QuantizeLinear" or view.params(node) is None:
            continue
        move = view.producers.get(node.inputs[0])
        if move is None or move.op not in MOVES or not view.only_use(move.output):
            continue
        source = view.producers.get(move.inputs[0])
        if source is None or _undoes(view, source, node):
            continue
        unmoved = TensorType(graph.types[move.inputs[0]].shape, graph.types[node.output].dtype)
        moved = graph.add_tensor(unmoved, f"{node.output}/unmoved")
        inputs = [move.inputs[0], *node.inputs[1:]]
        graph.nodes[index : index + 1] = [
            Node("QuantizeLinear", inputs, [moved], dict(node.attrs), node.name),
            Node("QMove", [moved], [node.output], {**move.attrs, "op": move.op}, move.name),
        ]
        graph.nodes.remove(move)
        return True
    return False


def _undoes(view: View, source: Node, node: Node) -> bool:
    """Whether `node` quantizes with the parameters that `source` dequantizes with: codes stay what they are."""
    if (source.op, node.op) != ("DequantizeLinear", "QuantizeLinear"):
        return False
    params = view.params(source)
    return params is not None and params == view.params(node)
