"""The program that lowering builds: a list of kernel calls over named tensors and constants."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tvm

from lowgemm.graph import TensorType
from lowgemm.schedules import KernelTask


@dataclass(frozen=True)
class Operand:
    """A kernel argument: the tensor `name`, seen by the kernel with `shape` and `dtype` (same bytes)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Call:
    """One kernel call. The last argument is written, the others are read (`writes` lists the written ones).

    `layer` names the model's nodes, `kernel` the kernel family and its form; `macs` counts multiply-accumulates. `task`
    is what a configuration was chosen for, if the family has any.
    """

    symbol: str
    args: tuple[Operand, ...]
    writes: tuple[int, ...]
    layer: str
    kernel: str
    macs: int = 0
    task: KernelTask | None = None


@dataclass
class Program:
    """Kernels and calls for one target. `tensors` are stored forms (NHWC for quantized maps), by name."""

    level: str
    inputs: list[str]
    outputs: list[str]
    tensors: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    kernels: dict[str, tvm.tirx.PrimFunc] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    _symbols: dict[object, str] = field(default_factory=dict)
    _known: dict[tuple, str] = field(default_factory=dict)

    def kernel(self, family: str, key: object, make: Callable[[], tvm.tirx.PrimFunc]) -> str:
        """The symbol of the kernel that `(family, key)` identifies; made on first use."""
        identity = (family, key)
        if identity not in self._symbols:
            symbol = f"{self.level}_{family}_{len(self._symbols)}"
            self.kernels[symbol] = make().with_attr("global_symbol", symbol)
            self._symbols[identity] = symbol
        return self._symbols[identity]

    def constant(self, value: np.ndarray) -> Operand:
        """A constant argument; equal arrays are stored once."""
        value = np.ascontiguousarray(value).reshape(value.shape)  # which makes scalars vectors
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = f"constant{len(self.constants)}"
            self.constants[self._known[key]] = value
        return Operand(self._known[key], value.shape, value.dtype.name)

    def resolve(self, name: str) -> str:
        """The tensor whose memory `name` shares."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def operand(self, name: str, shape: tuple[int, ...] | None = None) -> Operand:
        """The tensor `name` as an argument, reshaped to `shape` if given."""
        stored = self.tensors[name]
        return Operand(self.resolve(name), shape or stored.shape, stored.dtype)

    def declare(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Say how the tensor `name` is stored."""
        self.tensors[name] = TensorType(tuple(shape), dtype)

    def call(
        self,
        symbol: str,
        args: list[Operand],
        layer: str,
        kernel: str,
        macs: int = 0,
        writes: int = 1,
        task: KernelTask | None = None,
    ) -> None:
        """Append a call whose last `writes` arguments are written."""
        written = tuple(range(len(args) - writes, len(args)))
        self.calls.append(Call(symbol, tuple(args), written, layer, kernel, macs, task))
