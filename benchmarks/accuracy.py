"""Whether int8 results are right: against labels where a model has them, and against ONNX Runtime."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import zoo
from lowgemm.bench.engines import Arrays, Engine, Lowgemm, OnnxRuntime

FORMS = ("qdq", "qop")


@dataclass(frozen=True)
class Scores:
    """What three engines made of the same inputs, `float64[inputs, classes]` each.

    Attributes:
        reference: ONNX Runtime's of the float model.
        peer: ONNX Runtime's of the int8 model.
        own: lowgemm's of the same int8 model.
        labels: the right classes, if they are known.
    """

    model: str
    form: str
    reference: np.ndarray
    peer: np.ndarray
    own: np.ndarray
    labels: np.ndarray | None

    @property
    def same_top1(self) -> np.ndarray:
        """For each input, whether lowgemm and ONNX Runtime choose the same class."""
        return self.peer.argmax(1) == self.own.argmax(1)

    @property
    def margin(self) -> np.ndarray:
        """For each input, ONNX Runtime's best score minus its second, as a share of the range of scores."""
        second, best = np.sort(self.peer, 1)[:, -2:].T
        return (best - second) / (self.peer.max(1) - self.peer.min(1))

    @property
    def distance(self) -> float:
        """Between lowgemm's and ONNX Runtime's scores, relative to their norm."""
        return float(np.linalg.norm(self.own - self.peer) / np.linalg.norm(self.peer))

    def shares(self) -> dict[str, float]:
        """By engine, the share of inputs whose class is right; without labels, is the float model's."""
        truth = self.reference.argmax(1) if self.labels is None else self.labels
        engines = {"float": self.reference, "onnxruntime int8": self.peer, "lowgemm int8": self.own}
        return {name: float(np.mean(s.argmax(1) == truth)) for name, s in engines.items()}

    def __str__(self) -> str:
        truth = "the float model's class" if self.labels is None else "right"
        shares = ", ".join(f"{name} {share:.2%}" for name, share in self.shares().items())
        lines = [
            f"{self.model} {self.form}: {len(self.own)} inputs",
            f"  {truth}: {shares}",
            f"  top-1 as ONNX Runtime int8: {self.same_top1.sum()}, distance {self.distance:.1e}",
        ]
        lines += [
            f"  input {i}: margin of ONNX Runtime's top-1 is {self.margin[i]:.1%} of the scores' range"
            for i in np.flatnonzero(~self.same_top1)
        ]
        return "\n".join(lines)


def scores(files: zoo.ZooFiles, form: str, library: Path, threads: int | None = None) -> Scores:
    """Run all test inputs; `library` is `form` of the model, compiled."""
    inputs, labels = zoo.load_inputs(files.test)
    model = {"qdq": files.qdq, "qop": files.qop}[form]
    return Scores(
        model=files.name,
        form=form,
        reference=_run(OnnxRuntime(files.float, threads or 0), inputs),
        peer=_run(OnnxRuntime(model, threads or 0, exact=True), inputs),
        own=_run(Lowgemm(library, threads), inputs),
        labels=labels,
    )


def compare(names: Sequence[str], directory: Path) -> Iterator[Scores]:
    """Compile both int8 forms of each named model for this host, and run them."""
    import lowgemm

    for name in names:
        files = zoo.ensure(name, directory)
        with tempfile.TemporaryDirectory(prefix="lowgemm-accuracy-") as folder:
            for form in FORMS:
                library = Path(folder) / f"{form}.so"
                lowgemm.compile({"qdq": files.qdq, "qop": files.qop}[form]).export(library)
                yield scores(files, form, library)


def _run(engine: Engine, inputs: Sequence[Arrays]) -> np.ndarray:
    return np.stack([engine.outputs(x)[0].ravel() for x in inputs]).astype(np.float64)
