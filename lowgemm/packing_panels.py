"""Weights of floating-point and 64-bit products: panels of adjacent columns, read front to back.

A weight `(depth, columns)` becomes `[panel][word][column]`: a panel is the columns of a few vectors, and a word holds
`steps` consecutive elements of one column, the first in the lowest bits. One vector load gives the words of a vector's
columns, and a mask or a shift gives each step's elements of it in the lanes where arithmetic wants them.
"""

from dataclasses import dataclass

import numpy as np

from lowgemm.targets import CpuTarget

# Up to so many rows are one tile, and have kernels of their own.
FEW_ROWS = 6


@dataclass(frozen=True)
class WordFormat:
    """How elements lie in words: `steps` of them in each word of `dtype`, each `bits` wide."""

    dtype: str
    steps: int
    bits: int


# What weights may be. An int4 is held as the code plus 8. AVX-512 BF16 takes bfloat16 in pairs.
WORD_FORMATS: dict[str, WordFormat] = {
    "float32": WordFormat("float32", 1, 32),
    "float16": WordFormat("float16", 1, 16),
    "bfloat16": WordFormat("uint16", 1, 16),
    "bfloat16x2": WordFormat("uint32", 2, 16),
    "int8": WordFormat("int8", 1, 8),
    "int4": WordFormat("uint32", 8, 4),
    "int64": WordFormat("int64", 1, 64),
}


@dataclass(frozen=True)
class PanelLayout:
    """Panels of `vectors` times `lanes` columns, of elements `kind` (a key of `WORD_FORMATS`)."""

    kind: str
    lanes: int
    vectors: int

    @staticmethod
    def of(kind: str, columns: int, target: CpuTarget) -> "PanelLayout":
        """The layout of a weight of so many columns: with tiles of six rows, accumulators fill the registers."""
        lanes = target.lanes if kind != "int64" else target.lanes // 2
        most = 2 if target.registers == 16 else 4
        return PanelLayout(kind, lanes, min(most, -(-columns // lanes)))

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors

    @property
    def format(self) -> WordFormat:
        """The format of a word."""
        return WORD_FORMATS[self.kind]

    def panels(self, columns: int) -> int:
        """Panels that hold `columns`."""
        return -(-columns // self.width)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """`weight` `(depth, columns)` as `(panels, words, width)`, zero bits where there is no element.

        bfloat16 comes as its bits, int4 as integers of which the lowest four bits count.
        """
        depth, columns = weight.shape
        form = self.format
        words, panels = -(-depth // form.steps), self.panels(columns)
        padded = np.zeros((words * form.steps, panels * self.width), weight.dtype)
        padded[:depth, :columns] = weight
        split = padded.reshape(words, form.steps, panels, self.width)
        if form.steps == 1:
            joined = split[:, 0]
        else:
            joined = np.zeros((words, panels, self.width), np.uint32)
            for step in range(form.steps):
                field = split[:, step].astype(np.uint32) & np.uint32((1 << form.bits) - 1)
                joined |= field << np.uint32(step * form.bits)
        return np.ascontiguousarray(joined.transpose(1, 0, 2))

    def pad_columns(self, values: np.ndarray) -> np.ndarray:
        """`(..., columns)`, one value for each, with zeros up to whole panels."""
        *outer, columns = values.shape
        padded = np.zeros((*outer, self.panels(columns) * self.width), values.dtype)
        padded[..., :columns] = values
        return padded
