"""Hard-swishes behind convolutions, computed in the convolution's epilogue."""

from lowgemm.graph import Graph


def fuse_hard_swishes(graph: Graph) -> None:
    """QConv -> QLut with one use between them becomes the QConv alone, where the table is that of a hard-swish.

    The convolution's own rounding to 8 bits stays where the model put it, so the result does not change.
    """
    producers = graph.producers()
    uses = graph.uses()
    for lut in [n for n in graph.nodes if n.op == "QLut" and "hard_swish" in n.attrs]:
        conv = producers.get(lut.inputs[0])
        if (
            conv is None
            or conv.op != "QConv"
            or conv.attrs["out"] != lut.attrs["in"]
            or "add" in conv.attrs
            or "hard_swish" in conv.attrs
            or len(uses[conv.output]) > 1
            or conv.output in graph.outputs
        ):
            continue
        conv.attrs["hard_swish"] = {"factors": lut.attrs["hard_swish"], "out": lut.attrs["out"]}
        conv.outputs = [lut.output]
        conv.name = f"{conv.name}+{lut.name}"
        graph.nodes.remove(lut)
        producers[lut.output] = conv
