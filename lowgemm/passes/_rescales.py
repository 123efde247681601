"""Tables before resizes, which repeat codes, not behind them."""

import math

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._tables import rescaling
from lowgemm.passes._view import View


def tabulate_before_resizing(graph: Graph) -> None:
    """QResize -> QLut with one use between them becomes QLut -> QResize, where there are fewer codes before it.

    So does QResize -> QConcat where the parameters are others: the table that brings codes to the concatenation's is a
    node then.
    """
    _rescale_for_concatenations(graph)
    view = View(graph)
    for lut in [node for node in graph.nodes if node.op == "QLut"]:
        resize = _enlarging(view, lut.inputs[0])
        if resize is None:
            continue
        (small,), out = resize.inputs, lut.attrs["out"]
        fresh = graph.add_tensor(TensorType(graph.types[small].shape, out.dtype), small)
        resize.inputs, resize.outputs = [fresh], lut.outputs
        resize.attrs.update({"in": (out,), "out": out})
        lut.inputs, lut.outputs = [small], [fresh]
        graph.nodes.remove(lut)
        graph.nodes.insert(graph.nodes.index(resize), lut)


def _rescale_for_concatenations(graph: Graph) -> None:
    view = View(graph)
    for concat in [node for node in graph.nodes if node.op == "QConcat"]:
        out, sources = concat.attrs["out"], list(concat.attrs["in"])
        for index, (tensor, source) in enumerate(zip(concat.inputs, sources, strict=True)):
            if source == out or _enlarging(view, tensor) is None:
                continue
            fresh = graph.add_tensor(TensorType(graph.types[tensor].shape, out.dtype), tensor)
            table = rescaling(source, out)
            lut = Node("QLut", [tensor], [fresh], table, f"{concat.name}/{index}")
            graph.nodes.insert(graph.nodes.index(concat), lut)
            concat.inputs[index], sources[index] = fresh, out
        concat.attrs["in"] = tuple(sources)


def _enlarging(view: View, tensor: str) -> Node | None:
    """The QResize that makes `tensor` of fewer elements, for one reader."""
    node = view.producers.get(tensor)
    if node is None or node.op != "QResize" or not view.only_use(tensor):
        return None
    before, after = (math.prod(view.graph.types[t].shape) for t in (node.inputs[0], tensor))
    return node if before < after else None
