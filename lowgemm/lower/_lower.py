"""Dispatch: every fused node to the function that emits its kernel calls."""

from collections.abc import Mapping
from typing import Any

from lowgemm.graph import Graph
from lowgemm.lower import _float, _handlers, _layout
from lowgemm.lower._context import Context
from lowgemm.lower._program import Program
from lowgemm.passes import group_float_regions
from lowgemm.targets import CpuTarget


def lower(
    graph: Graph, target: CpuTarget, threads: int, configs: Mapping[tuple, Any] | None = None
) -> Program:
    """The program that computes `graph` (already fused) on `target`.

    `configs` are tuned configurations by `KernelTask.key`; kernels without one take the heuristic choice.

    Raises:
        UnsupportedOperatorError: operators remain that have no kernel here and that TVM's importer does not know.
    """
    program = Program(target.level, list(graph.inputs), list(graph.outputs))
    context = Context(program, graph, target, threads, configs or {})
    _layout.declare_inputs(context, frozenset(_handlers.HANDLERS))
    for item in group_float_regions(graph, _handlers.HANDLERS):
        if isinstance(item, list):
            _float.lower_region(context, item)
        else:
            _handlers.HANDLERS[item.op](context, item)
    _layout.finish_outputs(context)
    return program
