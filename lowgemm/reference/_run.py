"""Running a graph, operator by operator."""

from collections.abc import Iterable, Mapping

import numpy as np

from lowgemm.errors import InputError, UnsupportedOperatorError
from lowgemm.graph import Graph, Node
from lowgemm.reference import _elementwise, _movement, _quantized, _reductions, _resize, _windows
from lowgemm.reference._table import Operator

OPERATORS: dict[str, Operator] = {
    **_elementwise.OPERATORS,
    **_movement.OPERATORS,
    **_quantized.OPERATORS,
    **_reductions.OPERATORS,
    **_resize.OPERATORS,
    **_windows.OPERATORS,
}


def evaluate(node: Node, inputs: list[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of one node; an absent input is None.

    Raises:
        UnsupportedOperatorError: the reference does not know the operator.
    """
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise UnsupportedOperatorError(f"the reference has no operator {node.op} ({node.name!r})")
    with np.errstate(all="ignore"):  # infinities and NaN are results, as they are in a kernel
        results = operator(node.attrs, *inputs)
    return list(results) if isinstance(results, tuple) else [results]


def run_graph(
    graph: Graph, inputs: Mapping[str, np.ndarray], fetch: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Compute tensors of a graph from its inputs.

    Args:
        graph: what `load_onnx` returns, or a part of it.
        inputs: one array for every input of the graph, of its dtype and shape.
        fetch: the tensors wanted, any of the graph's; its outputs by default.

    Raises:
        InputError: an input is missing, unknown, or of another dtype or shape.
        UnsupportedOperatorError: the reference does not know an operator.
    """
    _check(graph, inputs)
    wanted = list(graph.outputs if fetch is None else fetch)
    values: dict[str, np.ndarray] = {**graph.constants, **inputs}
    last_use = {tensor: i for i, node in enumerate(graph.nodes) for tensor in node.inputs}
    for i, node in enumerate(graph.nodes):
        arrays = [values[tensor] if tensor else None for tensor in node.inputs]
        for tensor, value in zip(node.outputs, evaluate(node, arrays), strict=False):
            if not tensor:
                continue
            type_ = graph.types[tensor]
            found = np.asarray(value)
            assert found.shape == type_.shape, f"{node.name}: {found.shape}, not {type_}"
            values[tensor] = found.astype(type_.dtype, copy=False)
        for tensor in set(node.inputs):
            if last_use[tensor] == i and tensor not in wanted and tensor not in graph.constants:
                values.pop(tensor, None)
        if all(tensor in values for tensor in wanted):
            break
    return {tensor: values[tensor] for tensor in wanted}


def _check(graph: Graph, inputs: Mapping[str, np.ndarray]) -> None:
    for name in inputs:
        if name not in graph.inputs:
            raise InputError(f"{name!r} is no input; the inputs are {', '.join(graph.inputs)}")
    for name in graph.inputs:
        if name not in inputs:
            raise InputError(f"input {name!r} is missing")
        type_, found = graph.types[name], np.asarray(inputs[name])
        if found.shape != type_.shape or found.dtype.name != type_.dtype:
            shape = ", ".join(map(str, found.shape))
            raise InputError(f"input {name!r} is {found.dtype.name}[{shape}], expected {type_}")
