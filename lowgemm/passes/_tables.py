"""Functions of one tensor's codes, as tables of 256 entries."""

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._quantization import Quantization, add_ratios, mul_ratio
from lowgemm.quant import dequantize_linear, quantize_linear


def tabulate(
    graph: Graph, tensor: str, params: Quantization, chain: list[Node], end: Node, out: Quantization
) -> Node:
    """The table of a `chain` of elementwise operators from the codes `tensor` to the QuantizeLinear `end`."""
    low, high = params.range
    codes = np.arange(low, high + 1).astype(params.dtype)
    real = dequantize_linear(codes, np.float32(params.scale), params.zero_point)
    for step in chain:
        real = _evaluate(graph, step, real)
    table = quantize_linear(
        real.astype(np.float32), np.float32(out.scale), out.zero_point, np.dtype(out.dtype)
    )
    name = "+".join(step.name for step in chain) or end.name
    attrs = {"table": table, "in": params, "out": out, "ops": tuple(s.op for s in chain)}
    return Node("QLut", [tensor], list(end.outputs), attrs, name)


def _evaluate(graph: Graph, node: Node, values: np.ndarray) -> np.ndarray:
    """One elementwise operator applied to a vector, by the reference definition."""
    from lowgemm import reference

    single = Graph(name=node.name)
    constants = [t for t in node.inputs if t and t in graph.constants]
    inputs = []
    for tensor in node.inputs:
        if tensor and tensor not in constants:
            single.inputs, inputs = ["x"], [*inputs, "x"]
        elif tensor:
            single.constants[tensor] = graph.constants[tensor].reshape(-1)
            single.types[tensor] = TensorType((1,), graph.types[tensor].dtype)
            inputs.append(tensor)
        else:
            inputs.append("")
    single.types.update(x=TensorType.of(values), y=TensorType.of(values))
    single.outputs = ["y"]
    single.nodes = [Node(node.op, inputs, ["y"], dict(node.attrs), node.name)]
    return reference.run_graph(single, {"x": values})["y"]


def merge_tables(graph: Graph) -> None:
    """Everything that is a function of one tensor's codes becomes one table.

    Tables in a row, and also sums and products of two tables of the same tensor: a hard-swish that a model spells as
    x * hard_sigmoid(x), each step quantized, is still 256 values.
    """
    functions: dict[str, tuple[str, np.ndarray, Quantization]] = {}
    for node in graph.nodes:
        sources = node.attrs.get("in", ())
        sources = sources if isinstance(sources, tuple) else (sources,)
        if node.op == "QLut":
            known = [_as_function(functions, node.inputs[0], sources[0])]
        elif node.op in ("QAdd", "QMul") and len({graph.types[t].shape for t in node.inputs}) == 1:
            known = [
                _as_function(functions, *pair) for pair in zip(node.inputs, sources, strict=True)
            ]
        else:
            continue
        root, _, params = known[0]
        if any(other[0] != root for other in known):
            continue
        codes = [table.astype(np.int64) for _, table, _ in known]
        if node.op == "QLut":
            table = node.attrs["table"][codes[0] - sources[0].range[0]]
        else:
            table = _arithmetic(node, codes, sources)
        functions[node.output] = (root, table, params)
        ops = node.attrs.get("ops", (node.op[1:],))
        node.op, node.inputs = "QLut", [root]
        node.attrs = {"table": table, "in": params, "out": node.attrs["out"], "ops": ops}
    graph.prune()


def _as_function(
    functions, tensor: str, params: Quantization
) -> tuple[str, np.ndarray, Quantization]:
    low, high = params.range
    return functions.get(tensor, (tensor, np.arange(low, high + 1), params))


def _arithmetic(
    node: Node, codes: list[np.ndarray], sources: tuple[Quantization, ...]
) -> np.ndarray:
    """QAdd or QMul on vectors of codes, in the kernels' float32 arithmetic."""
    out: Quantization = node.attrs["out"]
    real = [(c - q.zero_point).astype(np.float32) for c, q in zip(codes, sources, strict=True)]
    if node.op == "QAdd":
        first, second = add_ratios(*sources, out=out)
        value = real[0] * first + real[1] * second
    else:
        value = real[0] * real[1] * mul_ratio(*sources, out=out)
    return np.clip(np.rint(value) + out.zero_point, node.attrs["low"], node.attrs["high"]).astype(
        out.dtype
    )
