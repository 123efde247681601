"""Softmaxes of rows of codes, which read a quarter of the bytes of their real values."""

from lowgemm.graph import Graph
from lowgemm.passes._view import View


def fuse_softmaxes(graph: Graph) -> None:
    """Dequantize -> RowSoftmax with one use between them becomes the RowSoftmax alone, with the codes' `params`.

    Codes of four axes are left alone: they lie channels last.
    """
    view = View(graph)
    for softmax in [node for node in graph.nodes if node.op == "RowSoftmax"]:
        real = softmax.inputs[0]
        source = view.producers.get(real)
        if source is None or source.op != "Dequantize" or not view.only_use(real):
            continue
        if graph.types[real].rank != 4:
            softmax.inputs = [source.inputs[0]]
            softmax.attrs["params"] = source.attrs["params"]
            graph.nodes.remove(source)
