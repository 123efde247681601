"""Functions of one tensor's codes, as tables of 256 entries."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._chains import varying_operands
from lowgemm.passes._quantization import Quantization, mul_ratio
from lowgemm.passes._view import View
from lowgemm.quant import (
    add_codes,
    dequantize_linear,
    hard_swish_codes,
    hard_swish_factors,
    quantize_linear,
    sum_factors,
)


@dataclass(frozen=True)
class Function:
    """Elementwise float operators, in order, that compute `result` from the codes of one tensor and nothing else.

    `reals` are the names under which the model dequantizes `codes`, all with `params`.
    """

    codes: str
    params: Quantization
    reals: tuple[str, ...]
    nodes: tuple[Node, ...]
    result: str


def function_of_codes(view: View, tensor: str) -> Function | None:
    """The function of one quantized tensor that the float `tensor` is, with however many branches; None if it is none.

    Who else reads what lies in between does not matter: it is computed for them beside the table.
    """
    shape = view.graph.types[tensor].shape
    sources: set[tuple[str, Quantization]] = set()
    reals: list[str] = []
    inside: set[int] = set()
    seen, open_ = {tensor}, [tensor]
    while open_:
        each = open_.pop()
        if view.graph.types[each].shape != shape:
            return None
        source = view.dequantized(each)
        if source:
            sources.add(source)
            reals.append(each)
            continue
        producer = view.producers.get(each)
        if producer is None or len(sources) > 1:
            return None
        operands = varying_operands(view, producer)
        if not operands:
            return None
        inside.add(id(producer))
        open_ += [t for t in operands if t not in seen]
        seen.update(operands)
    if len(sources) != 1:
        return None
    codes, params = sources.pop()
    nodes = tuple(node for node in view.graph.nodes if id(node) in inside)
    return Function(codes, params, tuple(reals), nodes, tensor)


def rescaling(source: Quantization, out: Quantization) -> dict[str, object]:
    """The attributes of the QLut that brings codes to other parameters."""
    return {"table": _table(_codes(source), source, out), "in": source, "out": out}


def _codes(params: Quantization) -> np.ndarray:
    """All codes there are, from the least on."""
    low, high = params.range
    return np.arange(low, high + 1).astype(params.dtype)


def _table(
    codes: np.ndarray,
    source: Quantization,
    out: Quantization,
    of: Callable[[np.ndarray], np.ndarray] = lambda real: real,
) -> np.ndarray:
    """The codes of the real values `of` those of `codes`."""
    real = dequantize_linear(codes, np.float32(source.scale), source.zero_point).astype(np.float32)
    return quantize_linear(of(real), np.float32(out.scale), out.zero_point, np.dtype(out.dtype))


def tabulate(graph: Graph, function: Function, end: Node, out: Quantization) -> Node:
    """The table of a function from its codes to those of the QuantizeLinear `end`."""
    params = function.params
    codes = _codes(params)
    table = _table(codes, params, out, lambda real: _evaluate(graph, function, real))
    name = "+".join(step.name for step in function.nodes) or end.name
    ops = tuple(step.op for step in function.nodes)
    attrs = {"table": table, "in": params, "out": out, "ops": ops}
    factors = _hard_swish(graph, function, out)
    steps = codes.astype(np.int64) - params.zero_point
    if factors is not None and np.array_equal(hard_swish_codes(steps, factors, out.dtype), table):
        attrs["hard_swish"] = factors
    return Node("QLut", [function.codes], list(end.outputs), attrs, name)


def _hard_swish(graph: Graph, function: Function, out: Quantization) -> np.ndarray | None:
    """The factors of the only factor * hard_swish(x) + term that the function may be: that of its values at 0 and 6."""
    with np.errstate(all="ignore"):
        at_0, at_6 = _evaluate(graph, function, np.array([0, 6], np.float32)).astype(np.float64)
        factors = hard_swish_factors(function.params.pair, out.pair, (at_6 - at_0) / 6, at_0)
    return factors if np.all(np.isfinite(factors)) and factors[0] > 0 else None


def _evaluate(graph: Graph, function: Function, values: np.ndarray) -> np.ndarray:
    """The function of a vector, by the reference definition."""
    from lowgemm import reference

    part = Graph(name=function.result, inputs=list(function.reals), outputs=[function.result])
    part.nodes = list(function.nodes)
    for tensor in (t for node in part.nodes for t in (*node.inputs, *node.outputs) if t):
        if tensor in graph.constants:
            part.constants[tensor] = graph.constants[tensor].reshape(-1)
            part.types[tensor] = TensorType.of(part.constants[tensor])
        else:
            part.types[tensor] = TensorType.of(values)
    part.types.update((real, TensorType.of(values)) for real in part.inputs)
    return reference.run_graph(part, dict.fromkeys(part.inputs, values))[function.result]


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
        if node.op == "QLut" and node.inputs == [root]:
            continue
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
    low, high = node.attrs["low"], node.attrs["high"]
    if node.op == "QAdd":
        factors = sum_factors(*(q.pair for q in (*sources, out)))
        return add_codes(codes[0], codes[1], factors, low, high, out.dtype)
    real = [(c - q.zero_point).astype(np.float32) for c, q in zip(codes, sources, strict=True)]
    value = real[0] * real[1] * mul_ratio(*sources, out=out)
    return np.clip(np.rint(value) + out.zero_point, low, high).astype(out.dtype)
