"""Quantization parameters of a tensor, and the factors that kernels make of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantization:
    """real = scale * (q - zero_point), per tensor; `dtype` is "uint8" or "int8"."""

    scale: float
    zero_point: int
    dtype: str

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest q."""
        return (0, 255) if self.dtype == "uint8" else (-128, 127)

    @property
    def pair(self) -> tuple[float, int]:
        """(scale, zero point)."""
        return self.scale, self.zero_point

    def quantize(self, value: float) -> int:
        """The q of one real value."""
        low, high = self.range
        return int(
            np.clip(
                np.rint(np.float32(value) / np.float32(self.scale)) + self.zero_point, low, high
            )
        )


def mul_ratio(first: Quantization, second: Quantization, out: Quantization) -> np.float32:
    """What QMul multiplies the product of codes with."""
    return np.float32(np.float64(first.scale) * np.float64(second.scale) / np.float64(out.scale))
