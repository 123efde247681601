"""Matrix products in one form: Gemm where the right-hand side is a weight, MatMul elsewhere."""

import numpy as np

from lowgemm.frontend._match import Matcher
from lowgemm.graph import Graph, Node


def normalise_products(graph: Graph) -> None:
    """Gemm {} is `lhs[M, K] @ weight[K, N] + bias[N]`, its weight constant (or a dequantized one).

    A Gemm of two computed matrices becomes a MatMul, a MatMul with a constant matrix a Gemm, and a
    bias that is added behind moves in.
    """
    match = Matcher(graph)
    for node in list(graph.nodes):
        if node.op == "Gemm" and not _is_weight(match, node.inputs[1]):
            _split(graph, node)
        elif node.op == "MatMul" and _is_dense(match, node):
            node.op = "Gemm"
    match = Matcher(graph)
    for node in list(graph.nodes):
        if node.op == "Add" and _absorb_bias(match, node):
            match = Matcher(graph)


def _is_weight(match: Matcher, tensor: str) -> bool:
    return tensor in match.graph.constants or match.dequantized_constant(tensor) is not None


def _is_dense(match: Matcher, node: Node) -> bool:
    types = match.graph.types
    ranks = [types[tensor].rank for tensor in node.inputs]
    floats = types[node.output].dtype.startswith("float")
    return ranks == [2, 2] and floats and _is_weight(match, node.inputs[1])


def _split(graph: Graph, node: Node) -> None:
    """A Gemm as MatMul, and Add if it has a bias."""
    node.op, node.attrs = "MatMul", {}
    if len(node.inputs) < 3:
        return
    bias = node.inputs.pop()
    out = node.output
    product = graph.add_tensor(graph.types[out], f"{out}:product")
    node.outputs = [product]
    add = Node("Add", [product, bias], [out], {}, f"{node.name}/bias")
    graph.nodes.insert(_position(graph, node) + 1, add)


def _absorb_bias(match: Matcher, node: Node) -> bool:
    graph = match.graph
    for product, bias in (node.inputs, node.inputs[::-1]):
        gemm = match.producer(product, "Gemm")
        if gemm is None or len(gemm.inputs) > 2 or match.only_use(product) is not node:
            continue
        columns = graph.types[product].shape[1]
        shape = graph.types[bias].shape
        if not _is_weight(match, bias) or shape not in ((columns,), (1, columns)):
            continue
        if shape != (columns,):
            if bias not in graph.constants:
                continue
            flat = np.reshape(graph.constants[bias], (columns,))
            bias = graph.add_constant(flat, f"{bias}:flat")
        # Takes the place of the Add, behind which the bias is sure to be computed.
        node.op, node.inputs, node.attrs = "Gemm", [*gemm.inputs, bias], {}
        node.name = gemm.name
        del graph.nodes[_position(graph, gemm)]
        return True
    return False


def _position(graph: Graph, node: Node) -> int:
    return next(i for i, other in enumerate(graph.nodes) if other is node)
