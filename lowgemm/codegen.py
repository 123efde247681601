"""From a program to what the artifact holds: machine code, packed constants and a plan with addresses."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tvm

from lowgemm import lower
from lowgemm.artifact import Buffer, Port, Step, Variant
from lowgemm.artifact.objects import emit_object, unaligned
from lowgemm.artifact.plan import Region
from lowgemm.graph import Graph
from lowgemm.targets import CpuTarget

_ALIGNMENT = 64
_PARTS = 4


def llvm_target(target: CpuTarget) -> tvm.target.Target:
    """TVM's name for a level. `num-cores` only bounds what the code generator prints; threads are chosen at load."""
    config: dict = {"kind": "llvm", "mcpu": target.llvm_cpu, "num-cores": 1}
    if target.llvm_features:
        config["mattr"] = list(target.llvm_features)
    return tvm.target.Target(config)


def generate(program: lower.Program, target: CpuTarget) -> Variant:
    """Compile the program's kernels and place its tensors and constants."""
    memory = lower.plan_memory(program)
    blob, offsets = _constants(program)
    ports: dict[str, tuple[Region, int]] = {
        name: ("input", index) for index, name in enumerate(program.inputs)
    }
    ports.update(
        (program.resolve(name), ("output", index)) for index, name in enumerate(program.outputs)
    )

    def buffer(operand: lower.Operand) -> Buffer:
        if operand.name in offsets:
            return Buffer(operand.shape, operand.dtype, "constant", offsets[operand.name])
        if operand.name in ports:
            region, index = ports[operand.name]
            return Buffer(operand.shape, operand.dtype, region, index)
        return Buffer(operand.shape, operand.dtype, "arena", memory.offsets[operand.name])

    steps = tuple(
        Step(
            call.symbol,
            tuple(buffer(o) for o in call.args),
            call.layer,
            call.kernel,
            call.macs,
            tuple(program.tensors[call.args[-1].name].shape),
        )
        for call in program.calls
    )
    used = {call.symbol for call in program.calls}
    kernels = {name: func for name, func in program.kernels.items() if name in used}
    # What callers give is used where it lies, at any element's address.
    for name in {call.symbol for call in program.calls if any(o.name in ports for o in call.args)}:
        kernels[name] = unaligned(kernels[name])
    return Variant(
        level=target.level,
        features=target.features,
        objects=_objects(kernels, target),
        steps=steps,
        arena_bytes=memory.arena_bytes,
        constants=blob,
    )


def _objects(kernels: dict[str, tvm.tirx.PrimFunc], target: CpuTarget) -> tuple[bytes, ...]:
    """The kernels' machine code, in parts that are compiled at the same time: LLVM does not hold Python's lock.

    How many parts there are does not depend on the CPUs, so that the same model gives the same library everywhere.
    """
    names = list(kernels)

    def emit(part: int) -> bytes:
        module = tvm.IRModule({name: kernels[name] for name in names[part::parts]})
        # The plan gives each kernel what it takes.
        return emit_object(module, llvm_target(target), trusting=True)

    parts = min(len(names), _PARTS)
    with ThreadPoolExecutor(min(parts, len(os.sched_getaffinity(0))) or 1) as workers:
        return tuple(workers.map(emit, range(parts)))


def ports(graph: Graph) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and outputs of a model as a user sees them."""

    def port(name: str) -> Port:
        return Port(name, graph.types[name].shape, graph.types[name].dtype)

    return tuple(port(n) for n in graph.inputs), tuple(port(n) for n in graph.outputs)


def metadata(graph: Graph) -> dict:
    """What the manifest says beside the plan: versions, and the size of the model."""
    return {
        "lowgemm": metadata_version("lowgemm"),
        "tvm": tvm.__version__,
        "nodes": len(graph.nodes),
    }


def metadata_version(package: str) -> str:
    """The installed version of a package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _constants(program: lower.Program) -> tuple[bytes, dict[str, int]]:
    """All constants that a call reads in one block, each aligned for vector loads."""
    offsets: dict[str, int] = {}
    parts: list[bytes] = []
    size = 0
    for call in program.calls:
        for operand in call.args:
            if operand.name in offsets or operand.name not in program.constants:
                continue
            data = np.ascontiguousarray(program.constants[operand.name]).tobytes()
            offsets[operand.name] = size
            padding = -len(data) % _ALIGNMENT
            parts += [data, b"\0" * padding]
            size += len(data) + padding
    return b"".join(parts), offsets
