"""Sums behind convolutions and products, computed in their epilogues."""

from lowgemm.graph import Graph, Node


def fuse_residuals(graph: Graph) -> None:
    """QConv or QMul -> QAdd with one use between them becomes a QConv or QMul with an operand more.

    Its own rounding to 8 bits stays where the model put it, so the result does not change.
    """
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    producers = graph.producers()
    uses = graph.uses()
    for add in [n for n in graph.nodes if n.op == "QAdd"]:
        # The operand computed last can take the other one along.
        candidates = []
        for side in (0, 1):
            source = producers.get(add.inputs[side])
            other = producers.get(add.inputs[1 - side])
            if (
                source is not None
                and _takes_a_sum(source)
                and len(uses[source.output]) == 1
                and source.output not in graph.outputs
                and add.inputs[0] != add.inputs[1]
                and (other is None or order[id(other)] < order[id(source)])
            ):
                candidates.append((order[id(source)], side, source))
        if not candidates:
            continue
        _, side, source = max(candidates, key=lambda c: c[0])
        source.attrs["add"] = {
            "in": add.attrs["in"],
            "residual_first": side == 1,
            "out": add.attrs["out"],
            "low": add.attrs["low"],
            "high": add.attrs["high"],
        }
        source.inputs.append(add.inputs[1 - side])
        source.outputs = [add.output]
        source.name = f"{source.name}+{add.name}"
        graph.nodes.remove(add)
        producers[add.output] = source


def _takes_a_sum(node: Node) -> bool:
    if node.op not in ("QConv", "QMul") or "add" in node.attrs or node.attrs["out"] is None:
        return False
    depthwise = node.attrs.get("group", 1) > 1 and node.attrs["weight"].shape[1] == 1
    return not depthwise  # whose kernel has no second operand
