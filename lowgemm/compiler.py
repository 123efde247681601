"""The pipeline: a model file in, a compiled model out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lowgemm import targets
from lowgemm.errors import InputError, TuningError, UnsupportedOperatorError

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
    tuning_db: str | os.PathLike[str] | None = None,
) -> CompiledModel:
    """Compile an ONNX model.

    Args:
        model: a path. Quantized models (QDQ or QOperator) are compiled as they are; a float model is quantized with
            `calibration` first (one array per input, samples along the first axis), or stays float without it.
        target: "host", or level names separated by commas; the library picks the best one its CPU can run.
        shapes: shapes of inputs with symbolic dimensions.
        threads: the number of threads to arrange work for, the CPUs of this machine by default. A library runs
            correctly, and with the same result, with any number.
        tuning_db: a database that `lowgemm.tune` wrote. Kernels that it knows, for this number of threads, are
            configured as it says; the others by heuristics.

    Raises:
        ModelError, CalibrationError, TargetError, InputError, TuningError: the argument concerned does not fit.
    """
    levels = targets.parse(target)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    if tuning_db is not None and not Path(tuning_db).is_file():
        raise TuningError(f"there is no tuning database {tuning_db}")
    from lowgemm.frontend.quantize import load_graph

    graph = load_graph(model, calibration, shapes)
    # Not before: loading TVM takes seconds, and most of what is wrong with arguments has been found by here.
    from lowgemm import artifact, codegen, lower, passes
    from lowgemm.tune import load_configs

    ports = codegen.ports(graph)
    metadata = codegen.metadata(graph)
    configs = {} if tuning_db is None else load_configs(tuning_db)
    fused = passes.fuse_quantized(graph)
    variants = []
    for level in levels:
        program = lower.lower(fused.copy(), level, threads or _cpus(), configs)
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


def _cpus() -> int:
    return len(os.sched_getaffinity(0))
