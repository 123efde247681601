"""Sums behind convolutions, computed in the convolution's epilogue."""

from lowgemm.graph import Graph, Node


def fuse_residuals(graph: Graph) -> None:
    """QConv -> QAdd with one use between them becomes a QConv with a second operand.

    The convolution's own rounding to 8 bits stays where the model put it, so the result does not change.
    """
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    producers = graph.producers()
    uses = graph.uses()
    for add in [n for n in graph.nodes if n.op == "QAdd"]:
        # The operand computed last can take the other one along.
        candidates = []
        for side in (0, 1):
            conv = producers.get(add.inputs[side])
            other = producers.get(add.inputs[1 - side])
            if (
                conv is not None
                and conv.op == "QConv"
                and not _is_depthwise(conv)  # whose kernel has no second operand
                and "add" not in conv.attrs
                and conv.attrs["out"] is not None
                and len(uses[conv.output]) == 1
                and conv.output not in graph.outputs
                and add.inputs[0] != add.inputs[1]
                and (other is None or order[id(other)] < order[id(conv)])
            ):
                candidates.append((order[id(conv)], side, conv))
        if not candidates:
            continue
        _, side, conv = max(candidates, key=lambda c: c[0])
        conv.attrs["add"] = {
            "in": add.attrs["in"],
            "residual_first": side == 1,
            "out": add.attrs["out"],
            "low": add.attrs["low"],
            "high": add.attrs["high"],
        }
        conv.inputs.append(add.inputs[1 - side])
        conv.outputs = [add.output]
        conv.name = f"{conv.name}+{add.name}"
        graph.nodes.remove(add)
        producers[add.output] = conv


def _is_depthwise(conv: Node) -> bool:
    return conv.attrs.get("group", 1) > 1 and conv.attrs["weight"].shape[1] == 1
