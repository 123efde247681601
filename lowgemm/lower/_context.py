"""What the functions that emit kernel calls work on, and the order in which each tensor is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lowgemm import schedules
from lowgemm.graph import Graph, TensorType
from lowgemm.lower._program import Operand, Program
from lowgemm.schedules import KernelTask
from lowgemm.targets import CpuTarget

NHWC = (0, 2, 3, 1)


def storage_order(type_: TensorType) -> tuple[int, ...]:
    """The axes in the order in which they are stored: codes of four axes are NHWC, all else is in the model's order.

    The type alone decides, so whoever reads a tensor knows how it was written.
    """
    codes = type_.dtype in ("uint8", "int8")
    return NHWC if codes and type_.rank == 4 else model_order(type_)


def model_order(type_: TensorType) -> tuple[int, ...]:
    """The axes in the order of the model, in which its inputs and outputs and all float operators have them."""
    return tuple(range(type_.rank))


def arranged(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    """The extents of the model's `shape` in the order `order`."""
    return tuple(shape[axis] for axis in order)


@dataclass(frozen=True)
class Context:
    """`program` is what is being built from `graph`; `configs` are the tuned ones, by `KernelTask.key`."""

    program: Program
    graph: Graph
    target: CpuTarget
    threads: int
    configs: Mapping[tuple, Any] = field(default_factory=dict)

    def task(
        self,
        family: str,
        shape,
        in_dtype: str,
        out_dtype: str,
        residual: str | None = None,
        target: CpuTarget | None = None,
    ) -> KernelTask:
        """The task of a kernel of this program; `target` is the program's as its weights let the kernel use it."""
        dtypes = (in_dtype, out_dtype, residual)
        return KernelTask(family, shape, *dtypes, target or self.target, self.threads)

    def config_for(self, task: KernelTask) -> Any:
        """The configuration of a kernel: the tuned one, or the heuristic choice."""
        tuned = self.configs.get(task.key)
        return schedules.default_config(task) if tuned is None else tuned

    def choose(self, likely: KernelTask, *others: KernelTask) -> KernelTask:
        """Of kernels that do the same, `likely` the fastest, one that is tuned, if any is."""
        return next((task for task in (likely, *others) if task.key in self.configs), likely)

    def declare(self, tensor: str) -> Operand:
        """Declare the tensor of the graph in its stored form."""
        type_ = self.graph.types[tensor]
        self.program.declare(tensor, arranged(type_.shape, storage_order(type_)), type_.dtype)
        return self.program.operand(tensor)
