"""Matrix products in one form: Gemm where the right-hand side is a weight, MatMul elsewhere."""

import numpy as np

from lowgemm.frontend._match import Matcher
from lowgemm.graph import Graph, Node, TensorType


def normalise_products(graph: Graph) -> None:
    """Gemm {} is `lhs[M, K] @ weight[K, N] + bias[N]`, its weight constant (or a dequantized one).

    A Gemm of two computed matrices becomes a MatMul, a MatMul with a constant matrix a Gemm, of all
    rows at once where there are several matrices of them, and a bias that is added behind moves in.
    """
    match = Matcher(graph)
    for node in list(graph.nodes):
        if node.op == "Gemm" and not _is_weight(match, node.inputs[1]):
            _split(graph, node)
        elif node.op == "MatMul" and _is_dense(match, node):
            if graph.types[node.inputs[0]].rank == 2:
                node.op = "Gemm"
            elif (
                node.inputs[1] in graph.constants
            ):  # quantized ones stay next to their quantization
                _flatten_rows(match, node)
                match = Matcher(graph)
    match = Matcher(graph)
    for node in list(graph.nodes):
        if node.op == "Add" and _absorb_bias(match, node):
            match = Matcher(graph)


def _is_weight(match: Matcher, tensor: str) -> bool:
    return tensor in match.graph.constants or match.dequantized_constant(tensor) is not None


def _is_dense(match: Matcher, node: Node) -> bool:
    """Whether a MatMul multiplies one or several matrices by one weight."""
    types = match.graph.types
    left, right = (types[tensor].rank for tensor in node.inputs)
    floats = types[node.output].dtype.startswith("float")
    return left >= 2 and right == 2 and floats and _is_weight(match, node.inputs[1])


def _flatten_rows(match: Matcher, node: Node) -> None:
    """Reshape, Gemm and Reshape of a MatMul, with the bias if one is added behind."""
    graph = match.graph
    lhs, weight = node.inputs
    types = graph.types
    depth, columns = types[weight].shape
    rows = types[lhs].size // depth
    dtype = types[lhs].dtype
    inputs, last = [weight], node
    add = match.only_use(node.output)
    if add is not None and add.op == "Add" and types[add.output] == types[node.output]:
        bias = next((t for t in add.inputs if t != node.output), "")
        if bias and _is_weight(match, bias) and types[bias].shape == (columns,):
            inputs, last = [weight, bias], add
    flat = graph.add_tensor(TensorType((rows, depth), dtype), f"{node.output}:rows")
    product = graph.add_tensor(TensorType((rows, columns), dtype), f"{node.output}:product")
    shape = list(types[last.output].shape)
    # In the place of the last one, where all that is read is sure to be computed.
    place = _position(graph, last)
    graph.nodes[place : place + 1] = [
        Node("Reshape", [lhs], [flat], {"shape": [rows, depth]}, f"{node.name}/rows"),
        Node("Gemm", [flat, *inputs], [product], {}, node.name),
        Node("Reshape", [product], [last.output], {"shape": shape}, f"{node.name}/shape"),
    ]
    if last is not node:
        del graph.nodes[_position(graph, node)]


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
