"""The demo itself: float model -> calibrate -> compile -> load -> classify, and what came of it."""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm.demo._samples import MODEL_PATH, Digits, load_digits

_INPUT, _OUTPUT = "image", "logits"
_WARM_UP = 20


@dataclass(frozen=True)
class Classified:
    """The labels that one engine gave to the test images, and its median time in microseconds."""

    engine: str
    labels: np.ndarray
    microseconds: float


@dataclass(frozen=True)
class DemoReport:
    """What a demo run found; `lines` words it.

    `lowgemm` is the compiled library; `peers` are ONNX Runtime on the float model and on the
    quantized model, empty where it is not installed. Accuracies are shares in [0, 1] of the same
    test images.
    """

    library: Path
    lowgemm: Classified
    peers: tuple[Classified, ...]
    truth: np.ndarray
    stored_float_accuracy: float
    threads: int
    compile_seconds: float

    def accuracy(self, classified: Classified) -> float:
        """The share of test images that `classified` labels rightly."""
        return float((classified.labels == self.truth).mean())

    def lines(self) -> list[str]:
        """The report as text, one line an item."""
        count, ours = len(self.truth), self.lowgemm
        if self.peers:
            floats, source = self.accuracy(self.peers[0]), f"computed by {self.peers[0].engine}"
        else:
            floats, source = self.stored_float_accuracy, "as stored when the model was trained"
        rows = [ours, *self.peers]
        width = max(len(row.engine) for row in rows)
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        text = [
            f"{count} digits that the model was not trained on, one image at a time, {threads}",
            f"accuracy float  {floats:7.2%}  ({source})",
            f"accuracy int8   {self.accuracy(ours):7.2%}  (computed by {ours.engine})",
            f"{'':<{width}}    median time per image  accuracy",
            *(
                f"  {row.engine:<{width}}  {row.microseconds:18.1f} us  {self.accuracy(row):8.2%}"
                for row in rows
            ),
        ]
        if not self.peers:
            text.append("  (ONNX Runtime is not installed, so there is nothing beside it)")
        size = self.library.stat().st_size / 1024
        text.append(f"compiled in {self.compile_seconds:.1f} s to {self.library} ({size:.0f} KiB)")
        return text


def run_demo(
    out_dir: str | Path, threads: int | None = None, progress: Callable[[str], None] | None = None
) -> DemoReport:
    """Calibrate, compile, load and run the digit classifier.

    Args:
        out_dir: a folder, made if missing, for `digits-int8.onnx`, `digits.so` and `digits.h`.
        threads: how many threads classify; by default every CPU that this process may use.
        progress: is told each stage's name as it begins.

    Raises:
        CalibrationError: the calibrating extra (`lowgemm[quantize]`) is not installed.
    """
    # Only here: a package's `import` must stay light, and these load the compiler.
    import lowgemm
    from lowgemm.frontend.quantize import quantize

    say = progress or (lambda stage: None)
    threads = threads or len(os.sched_getaffinity(0))
    out = Path(out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()

    say(f"calibrating {MODEL_PATH.name} on {len(digits.calibration)} images")
    quantized = out / "digits-int8.onnx"
    quantize(MODEL_PATH, {_INPUT: digits.calibration}, quantized)

    say("compiling")
    library = out / "digits.so"
    started = time.perf_counter()
    lowgemm.compile(quantized, threads=threads).export(library)
    compile_seconds = time.perf_counter() - started

    say(f"classifying {len(digits.test)} images")
    net = lowgemm.load(library, threads=threads)
    ours = _classify("lowgemm int8", lambda image: net({_INPUT: image})[_OUTPUT], digits)
    peers = ()
    if importlib.util.find_spec("onnxruntime") is not None:
        peers = (
            _classify("ONNX Runtime float", _onnxruntime(MODEL_PATH, threads), digits),
            _classify("ONNX Runtime int8", _onnxruntime(quantized, threads), digits),
        )
    return DemoReport(
        library, ours, peers, digits.labels, digits.float_accuracy, threads, compile_seconds
    )


def _classify(engine: str, run: Callable[[np.ndarray], np.ndarray], digits: Digits) -> Classified:
    """Label every test image with `run`: `float32[1, 1, 28, 28]` to `float32[1, 10]`."""
    for image in digits.test[:_WARM_UP]:
        run(image[None])
    labels = np.empty(len(digits.test), np.uint8)
    seconds = np.empty(len(digits.test))
    for i, image in enumerate(digits.test):
        started = time.perf_counter()
        logits = run(image[None])
        seconds[i] = time.perf_counter() - started
        labels[i] = logits.argmax()
    return Classified(engine, labels, float(np.median(seconds)) * 1e6)


def _onnxruntime(model: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that runs `model` in ONNX Runtime on `threads` threads."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray) -> np.ndarray:
        outputs: Any = session.run([_OUTPUT], {_INPUT: image})
        return outputs[0]

    return run
