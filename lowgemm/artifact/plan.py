"""The plan of a compiled model: what the artifact holds, as plain values."""

from dataclasses import dataclass, field
from typing import Any, Literal

Region = Literal["input", "output", "arena", "constant"]


@dataclass(frozen=True)
class Port:
    """An input or output of the model as a user sees it. `dtype` is numpy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Buffer:
    """A kernel argument: where its bytes are. `offset` counts bytes into the region; for a port it is the index."""

    shape: tuple[int, ...]
    dtype: str
    region: Region
    offset: int


@dataclass(frozen=True)
class Step:
    """One kernel call: C symbol `__tvm_ffi_<symbol>` with TVM's packed-function ABI.

    `shape` is that of the tensor it writes, as it is stored: NHWC for 8-bit maps.
    """

    symbol: str
    args: tuple[Buffer, ...]
    layer: str
    kernel: str
    macs: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Variant:
    """The model compiled for one instruction-set level.

    `features` (names of /proc/cpuinfo) are what a CPU must have. All contexts share the constants; each has an arena of
    its own.
    """

    level: str
    features: tuple[str, ...]
    objects: tuple[bytes, ...]
    steps: tuple[Step, ...]
    arena_bytes: int
    constants: bytes


@dataclass(frozen=True)
class Plan:
    """A whole model: ports, and variants with the best level first. `metadata` goes into the manifest."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    variants: tuple[Variant, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
