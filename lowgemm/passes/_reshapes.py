"""Reshapes around matrix products, which take any number of axes for their rows."""

from lowgemm.graph import Graph, Node


def absorb_reshapes(graph: Graph) -> None:
    """QMove -> QConv (gemm) -> QMove becomes the QConv alone where both only split or join rows."""
    producers, uses = graph.producers(), graph.uses()
    for node in [n for n in graph.nodes if n.op == "QConv" and n.attrs["gemm"]]:
        before = producers.get(node.inputs[0])
        if before is not None and _keeps_columns(graph, before):
            node.inputs[0] = before.inputs[0]
        users = uses[node.output]
        alone = len(users) == 1 and node.output not in graph.outputs
        if alone and _keeps_columns(graph, users[0]):
            node.outputs = list(users[0].outputs)
            graph.nodes.remove(users[0])
            producers[node.output] = node
    graph.prune()


def _keeps_columns(graph: Graph, node: Node) -> bool:
    if node.op != "QMove" or node.attrs["op"] not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return False
    before, after = (graph.types[t].shape for t in (node.inputs[0], node.output))
    return bool(before and after) and before[-1] == after[-1]
