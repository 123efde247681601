"""Softmaxes of rows of codes, which read a quarter of the bytes of their real values."""

from lowgemm.graph import Graph


def fuse_softmaxes(graph: Graph) -> None:
    """Dequantize -> RowSoftmax with one use between them becomes the RowSoftmax alone, with the codes' `params`.

    Codes of four axes are left alone: they lie channels last.
    """
    producers, uses = graph.producers(), graph.uses()
    for softmax in [node for node in graph.nodes if node.op == "RowSoftmax"]:
        real = softmax.inputs[0]
        source = producers.get(real)
        alone = len(uses[real]) == 1 and real not in graph.outputs
        if source and source.op == "Dequantize" and alone and graph.types[real].rank != 4:
            softmax.inputs = [source.inputs[0]]
            softmax.attrs["params"] = source.attrs["params"]
            graph.nodes.remove(source)
