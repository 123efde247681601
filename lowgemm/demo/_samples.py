"""The files that ship with the package: the model and the images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).parent

# A float32 ONNX model: `image` is `1x1x28x28` in [0, 1], `logits` is `1x10`. Made by
# tools/train_demo.py.
MODEL_PATH = _FOLDER / "digits.onnx"


@dataclass(frozen=True)
class Digits:
    """Handwritten digits from MNIST (Y. LeCun, C. Cortes, C. Burges), split into three.

    `test` is `float32[1000, 1, 28, 28]` in [0, 1] and `labels` is `uint8[1000]`. `calibration`
    holds 200 of the training images in the same form. `float_accuracy` is what PyTorch measured on
    `test` after training.
    """

    test: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray
    float_accuracy: float


def load_digits() -> Digits:
    """Read the images that ship with the package."""
    with np.load(_FOLDER / "digits.npz") as archive:
        return Digits(
            test=_normalized(archive["test_images"]),
            labels=archive["test_labels"],
            calibration=_normalized(archive["calibration_images"]),
            float_accuracy=float(archive["float_accuracy"]),
        )


def _normalized(images: np.ndarray) -> np.ndarray:
    """Turn `uint8[n, 28, 28]` into `float32[n, 1, 28, 28]` in [0, 1]."""
    return images[:, None].astype(np.float32) / np.float32(255)
