"""Whole models at batch 1: lowgemm beside every form of them that the peers take."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import zoo
from lowgemm.bench.host import Setting
from lowgemm.bench.models import measure_model
from lowgemm.bench.record import Row
from lowgemm.frontend import load_onnx


def measure(name: str, directory: Path, against: Sequence[str], setting: Setting) -> Row:
    """Time a model of the zoo, which is built first if it is missing."""
    files = zoo.ensure(name, directory)
    samples = zoo.load_inputs(files.test)[0]
    forms = {"float": files.float, "qdq": files.qdq, "qop": files.qop}
    graph = load_onnx(files.qdq)
    with tempfile.TemporaryDirectory(prefix="lowgemm-bench-") as folder:
        return measure_model(name, forms, "qdq", graph, samples, against, setting, Path(folder))
