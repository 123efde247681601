"""Group the operators that are left to TVM into regions, each compiled as a whole."""

from collections.abc import Container

from lowgemm.graph import Graph, Node


def group_float_regions(graph: Graph, integer_ops: Container[str]) -> list[Node | list[Node]]:
    """The nodes in an order of execution: integer operators one by one, float operators in maximal groups.

    `integer_ops` have kernels of their own; all others count as float.

    A node's level counts the changes between integer and float on the longest way to it. Float nodes of one level form
    one group: no way leads out of it and back in, since every change of kind raises the level.
    """
    levels: dict[str, int] = {}
    stages: dict[int, list[Node]] = {}
    for node in graph.nodes:
        parity = 0 if node.op in integer_ops else 1
        level = max((levels[t] for t in node.inputs if t in levels), default=0)
        level += (level + parity) % 2
        stages.setdefault(level, []).append(node)
        levels.update((t, level) for t in node.outputs if t)
    order: list[Node | list[Node]] = []
    for level in sorted(stages):
        if level % 2:
            order.append(stages[level])
        else:
            order.extend(stages[level])
    return order
