"""Whole models at batch 1: lowgemm beside every form of them that the peers take."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import zoo
from benchmarks.engines import PEERS, Arrays, Engine, Lowgemm, OnnxRuntime
from benchmarks.macs import count_macs
from benchmarks.record import LOWGEMM, Row, reason
from benchmarks.timing import from_python, interleaved

_CHECKED_INPUTS = 8
# Engines round a requantized value alike but for ties and the last bit of a float32 scale; such
# steps of one reach the output smaller than this. A wrong kernel is off by tens of percent.
_TOLERANCE = 0.05


def rows(
    names: Sequence[str],
    threads: int,
    against: Sequence[str],
    peak_gops: float,
    seconds: float,
    state: str,
    before_run: Callable[[], object] | None,
    directory: Path,
) -> Iterator[Row]:
    """Time each named model of the zoo, which is built first where it is missing."""
    for name in names:
        files = zoo.ensure(name, directory)
        samples = zoo.load_inputs(files.test)[0][:_CHECKED_INPUTS]
        engines, failures = _peers(files, threads, against)
        compile_seconds = None
        with tempfile.TemporaryDirectory(prefix="lowgemm-bench-") as folder:
            try:
                library = Path(folder) / "model.so"
                compile_seconds = _compile(files.qdq, library, threads)
                engines = {LOWGEMM: Lowgemm(library, threads), **engines}
            except Exception as error:  # anything: the peers' numbers are still worth having
                failures[LOWGEMM] = reason(error)
            errors = _check(engines, failures, files, samples)
            runs = {
                key: from_python(partial(engine.run, samples[0])) for key, engine in engines.items()
            }
            yield Row(
                name=name,
                shape="; ".join(
                    f"{k} {'x'.join(map(str, v.shape))}" for k, v in samples[0].items()
                ),
                dtype="u8s8",
                threads=threads,
                state=state,
                macs=count_macs(files.float),
                peak_gops=peak_gops,
                times=interleaved(runs, seconds, before_run),
                errors=errors,
                failures=failures,
                compile_seconds=compile_seconds,
            )


def _compile(model: Path, library: Path, threads: int) -> float:
    """Compile to `library` and say how many seconds that took."""
    import lowgemm

    start = time.perf_counter()
    lowgemm.compile(model, threads=threads).export(library)
    return time.perf_counter() - start


def _peers(
    files: zoo.ZooFiles, threads: int, against: Sequence[str]
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Every form of the model in every peer that takes it, and why the others do not."""
    engines: dict[str, Engine] = {}
    failures: dict[str, str] = {}
    for peer in against:
        for form, path in (("float", files.float), ("qdq", files.qdq), ("qop", files.qop)):
            if form == "qop" and peer != "onnxruntime":
                continue  # com.microsoft operators are its own
            try:
                engines[f"{peer} {form}"] = PEERS[peer](path, threads)
            except Exception as error:  # each engine has exceptions of its own
                failures[f"{peer} {form}"] = reason(error)
    return engines, failures


def _check(
    engines: dict[str, Engine],
    failures: dict[str, str],
    files: zoo.ZooFiles,
    samples: Sequence[Arrays],
) -> dict[str, float]:
    """Each engine's distance to ONNX Runtime's result of the same form, computed exactly.

    A wrong result takes lowgemm out of `engines`. Peers stay: saturating is how some of them are
    fast, and leaving them out would flatter lowgemm.
    """
    references = {
        form: _outputs(OnnxRuntime(path, 1, exact=True), samples)
        for form, path in (("float", files.float), ("qdq", files.qdq), ("qop", files.qop))
        if f"onnxruntime {form}" not in failures
    }
    errors = {}
    for name, engine in list(engines.items()):
        form = "qdq" if name == LOWGEMM else name.rpartition(" ")[2]
        if form not in references:
            continue
        reference = references[form]
        distance = np.linalg.norm(_outputs(engine, samples) - reference)
        errors[name] = float(distance / np.linalg.norm(reference))
    if errors.get(LOWGEMM, 0.0) > _TOLERANCE:
        del engines[LOWGEMM]
        failures[LOWGEMM] = f"wrong result: {errors[LOWGEMM]:.1%} off ONNX Runtime's"
    return errors


def _outputs(engine: Engine, samples: Sequence[Arrays]) -> np.ndarray:
    outputs = [np.ravel(value) for inputs in samples for value in engine.outputs(inputs)]
    return np.concatenate(outputs).astype(np.float64)
