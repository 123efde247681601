"""The pipeline: a model file in, a compiled model out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lowgemm import targets
from lowgemm.errors import InputError, UnsupportedOperatorError

if TYPE_CHECKING:
    import numpy as np

    from lowgemm.artifact.plan import Plan, Variant
    from lowgemm.lower import Program
    from lowgemm.targets import CpuTarget


@dataclass(frozen=True)
class CompiledModel:
    """A model compiled to kernels, a plan and packed weights, not yet linked."""

    plan: Plan

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Link one self-contained shared library at `path`, and its C header beside it.

        Raises:
            ArtifactError: there is no C compiler, or it fails.
        """
        from lowgemm import artifact

        target = Path(path)
        artifact.build(self.plan, target, header_path=target.with_suffix(".h"))
        return target


def compile(
    model: str | os.PathLike[str],
    target: str = "host",
    calibration: dict[str, np.ndarray] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    threads: int | None = None,
) -> CompiledModel:
    """Compile an ONNX model.

    Args:
        model: a path. Quantized models (QDQ or QOperator) are compiled as they are; a float model is quantized with
            `calibration` first (one array per input, samples along the first axis), or stays float without it.
        target: "host", or level names separated by commas; the library picks the best one its CPU can run.
        shapes: shapes of inputs with symbolic dimensions.
        threads: the number of threads to arrange work for, the CPUs of this machine by default. A library runs
            correctly, and with the same result, with any number.

    Raises:
        ModelError, CalibrationError, TargetError, InputError: the argument concerned does not fit.
    """
    levels = targets.parse(target)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    graph = _read(model, calibration, shapes)
    # Not before: loading TVM takes seconds, and most of what is wrong with arguments has been found by here.
    from lowgemm import artifact, codegen, lower, passes

    ports = codegen.ports(graph)
    metadata = codegen.metadata(graph)
    fused = passes.fuse_quantized(graph)
    variants = []
    for level in levels:
        program = lower.lower(fused.copy(), level, threads or _cpus())
        variants.append(_generated(program, level))
    return CompiledModel(artifact.Plan(graph.name, *ports, tuple(variants), metadata))


def _generated(program: Program, level: CpuTarget) -> Variant:
    """The program's code.

    Raises:
        UnsupportedOperatorError: TVM has no code for a kernel that it made of float operators.
    """
    from lowgemm import codegen

    try:
        return codegen.generate(program, level)
    except Exception as error:  # what kind it is depends on where in TVM it was noticed
        for call in program.calls:
            if call.kernel.startswith("float_") and not _compiles(program, call.symbol, level):
                raise UnsupportedOperatorError(
                    f"TVM has no code for kernel {call.kernel} of the float operators {call.layer}"
                ) from error
        raise


def _compiles(program: Program, symbol: str, level: CpuTarget) -> bool:
    import tvm

    from lowgemm import codegen
    from lowgemm.artifact.objects import emit_object

    try:
        emit_object(tvm.IRModule({symbol: program.kernels[symbol]}), codegen.llvm_target(level))
    except Exception:
        return False
    return True


def _read(model, calibration, shapes):
    """The model's graph, quantized first where calibration samples are given."""
    from lowgemm.frontend import load_onnx, to_onnx
    from lowgemm.frontend.quantize import quantize_graph

    if calibration is None:
        return load_onnx(model, shapes)
    # By way of the QDQ form: the same model as `lowgemm quantize` writes.
    return load_onnx(to_onnx(quantize_graph(model, calibration, shapes=shapes)))


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
