"""Tables before resizes, which repeat codes, not behind them."""

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._tables import rescaling


def tabulate_before_resizing(graph: Graph) -> None:
    """QResize -> QLut with one use between them becomes QLut -> QResize.

    So does QResize -> QConcat where the parameters are others: the table that brings codes to the concatenation's is a
    node then.
    """
    _rescale_for_concatenations(graph)
    producers, uses = graph.producers(), graph.uses()
    for at, lut in enumerate(graph.nodes):
        resize = producers.get(lut.inputs[0]) if lut.op == "QLut" else None
        if resize is None or not _repeats(graph, uses, lut.inputs[0], resize):
            continue
        small, out = resize.inputs[0], lut.attrs["out"]
        fresh = graph.add_tensor(TensorType(graph.types[small].shape, out.dtype), small)
        resize.inputs, resize.outputs = [fresh], lut.outputs
        resize.attrs.update({"in": (out,), "out": out})
        lut.inputs, lut.outputs = [small], [fresh]
        producers[resize.output], producers[fresh] = resize, lut
        first = next(i for i, node in enumerate(graph.nodes) if node is resize)
        graph.nodes[first], graph.nodes[at] = lut, resize


def _rescale_for_concatenations(graph: Graph) -> None:
    producers, uses = graph.producers(), graph.uses()
    nodes: list[Node] = []
    for node in graph.nodes:
        sources = list(node.attrs["in"]) if node.op == "QConcat" else []
        for index, source in enumerate(sources):
            tensor, out = node.inputs[index], node.attrs["out"]
            resize = producers.get(tensor)
            if source == out or resize is None or not _repeats(graph, uses, tensor, resize):
                continue
            codes = TensorType(graph.types[tensor].shape, out.dtype)
            fresh = graph.add_tensor(codes, tensor)
            name = f"{node.name}/{index}"
            nodes.append(Node("QLut", [tensor], [fresh], rescaling(source, out), name))
            node.inputs[index], sources[index] = fresh, out
        if node.op == "QConcat":
            node.attrs["in"] = tuple(sources)
        nodes.append(node)
    graph.nodes = nodes


def _repeats(graph: Graph, uses: dict, tensor: str, node: Node) -> bool:
    """Whether `tensor`, the node's output, is a resized image that is read once."""
    return node.op == "QResize" and len(uses[tensor]) == 1 and tensor not in graph.outputs
