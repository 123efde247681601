"""Whole models at batch 1: lowgemm beside every form of them that the peers take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from lowgemm.bench.compare import Work, compare
from lowgemm.bench.engines import (
    PEERS,
    Arrays,
    Lowgemm,
    ModelContestant,
    installed,
)
from lowgemm.bench.host import Setting
from lowgemm.bench.macs import count_bytes, count_macs
from lowgemm.bench.record import LOWGEMM, Row
from lowgemm.bench.references import References
from lowgemm.errors import BenchError, LowgemmError
from lowgemm.graph import Graph, TensorType

_CHECKED_INPUTS = 8
_SEED = 0


def measure_model(
    name: str,
    forms: Mapping[str, Path],
    own: str,
    graph: Graph,
    samples: Sequence[Arrays],
    against: Sequence[str],
    setting: Setting,
    folder: Path,
) -> Row:
    """Time one model.

    Results are compared with those of ONNX Runtime's exact kernels on the same form (`References`); without ONNX
    Runtime they are not.

    Args:
        forms: the same model as files: "float", "qdq", "qop" (ONNX Runtime's own operators, for it alone).
        own: the form that lowgemm compiles.
        graph: the model as lowgemm reads it.
        samples: inputs; the first few are compared, the first one is timed.
        against: names of `PEERS`.
        folder: for lowgemm's library.
    """
    samples = list(samples[:_CHECKED_INPUTS])
    shapes = {key: value.shape for key, value in samples[0].items()}

    def lowgemm_contestant() -> ModelContestant:
        import lowgemm

        library = folder / "model.so"
        compiled = lowgemm.compile(forms[own], shapes=shapes, threads=setting.threads)
        return ModelContestant(Lowgemm(compiled.export(library), setting.threads), samples)

    def peer_contestant(peer: str, form: str) -> ModelContestant:
        if not installed(peer):
            raise BenchError(f"{peer} is not installed")
        return ModelContestant(PEERS[peer](forms[form], setting.threads, shapes), samples)

    makers: dict[str, Callable[[], ModelContestant]] = {LOWGEMM: lowgemm_contestant}
    for peer in against:
        for form in forms:
            if form != "qop" or peer == "onnxruntime":
                makers[f"{peer} {form}"] = partial(peer_contestant, peer, form)
    references = References(forms, samples)

    def check(contestant: str, found: np.ndarray) -> tuple[float, bool] | None:
        form = own if contestant == LOWGEMM else contestant.rpartition(" ")[2]
        return references.verdict(form, found) if installed("onnxruntime") else None

    work = Work(
        name=name,
        shape="; ".join(f"{k} {'x'.join(map(str, shape))}" for k, shape in shapes.items()),
        dtype="float32" if own == "float" else "u8s8",
        macs=count_macs(graph),
        moved=count_bytes(graph),
        peak="fma_gops" if own == "float" else "dot_gops",
    )
    return compare(work, makers, check, setting)


def random_inputs(graph: Graph) -> list[Arrays]:
    """One sample for every input of the model: floats are normally distributed, everything else is 0 or 1."""
    generator = np.random.default_rng(_SEED)

    def values(type_: TensorType) -> np.ndarray:
        if np.dtype(type_.dtype).kind == "f":
            return generator.standard_normal(type_.shape).astype(type_.dtype)
        return generator.integers(0, 2, type_.shape).astype(type_.dtype)

    return [{name: values(graph.types[name]) for name in graph.inputs}]


def bench_model(
    model: Path,
    against: Sequence[str],
    setting: Setting,
    folder: Path,
    calibration: Mapping[str, np.ndarray] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Row:
    """Time a user's model.

    Args:
        model: an ONNX file, quantized or float.
        calibration: samples, with which a float model is quantized first. Peers run both forms.
        folder: an empty one for what is made of the model.

    Raises:
        LowgemmError: the model or the samples cannot be used, or lowgemm's result is wrong.
    """
    from lowgemm.frontend import load_onnx
    from lowgemm.frontend.quantize import Batches, quantize

    graph = load_onnx(model, shapes)
    quantized = any(node.op == "DequantizeLinear" for node in graph.nodes)
    forms, own = {("qdq" if quantized else "float"): model}, "qdq" if quantized else "float"
    if calibration is not None:
        forms["qdq"], own = folder / "quantized.onnx", "qdq"
        quantize(model, calibration, forms["qdq"], shapes=shapes)
        graph = load_onnx(forms["qdq"], shapes)
        samples = list(islice(Batches(graph, calibration), _CHECKED_INPUTS))
    else:
        samples = random_inputs(graph)
    row = measure_model(model.stem, forms, own, graph, samples, against, setting, folder)
    if LOWGEMM in row.failures:
        raise LowgemmError(f"lowgemm failed on {model}: {row.failures[LOWGEMM]}")
    return row
