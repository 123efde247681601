"""The demo itself: float model -> calibrate -> compile -> load -> classify, and what came of it."""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm.demo._samples import MODEL_PATH, load_digits

_INPUT, _OUTPUT = "image", "logits"
_TURN, _WARM_UP = 100, 20  # images

# Computes logits, `float32[1, 10]`, of one image, `float32[1, 1, 28, 28]`.
Engine = Callable[[np.ndarray], np.ndarray]


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
    out = Path(out_dir)
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

    net = lowgemm.load(library, threads=threads)
    engines: dict[str, Engine] = {"lowgemm int8": lambda image: net({_INPUT: image})[_OUTPUT]}
    if importlib.util.find_spec("onnxruntime") is not None:
        engines["ONNX Runtime float"] = _onnxruntime(MODEL_PATH, threads)
        engines["ONNX Runtime int8"] = _onnxruntime(quantized, threads)
    say(f"classifying {len(digits.test)} images")
    ours, *peers = _classify(engines, digits.test)
    return DemoReport(
        library, ours, tuple(peers), digits.labels, digits.float_accuracy, threads, compile_seconds
    )


def _classify(engines: dict[str, Engine], images: np.ndarray) -> list[Classified]:
    """Label `images` with each engine.

    The engines take turns, so that whatever else the machine does falls on all of them, but not
    image by image: an engine's threads spin for a while after each call, and would get in the way.
    """
    labels = {name: np.empty(len(images), np.uint8) for name in engines}
    seconds = {name: np.empty(len(images)) for name in engines}
    for start in range(0, len(images), _TURN):
        for name, run in engines.items():
            for image in images[:_WARM_UP]:
                run(image[None])
            for i, image in enumerate(images[start : start + _TURN], start):
                started = time.perf_counter()
                logits = run(image[None])
                seconds[name][i] = time.perf_counter() - started
                labels[name][i] = logits.argmax()
    return [
        Classified(name, labels[name], float(np.median(seconds[name])) * 1e6) for name in engines
    ]


def _onnxruntime(model: Path, threads: int) -> Engine:
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
