"""Weights of floating-point and 64-bit products: panels of adjacent columns, read front to back.

A weight `(depth, columns)` becomes `[panel][word][column]`: a panel is the columns of a few vectors, and a word holds
`steps` consecutive elements of one column, the first in the lowest bits. One vector load gives the words of a vector's
columns, and a mask or a shift gives each step's elements of it in the lanes where arithmetic wants them.

In vectors of 32 bytes a load may begin anywhere at little cost. So there, bfloat16 and int8 lie in words of 32 bits,
which are read anew for each step, from where its element ends the lane. One mask with an operand in memory then does
what an instruction that widens elements would do, which competes with multiplications for ports. Such panels begin with
`lead` elements of nothing.
"""

from dataclasses import dataclass

import numpy as np

from lowgemm.targets import CpuTarget

# Up to so many rows are one tile, and have kernels of their own.
FEW_ROWS = 6


@dataclass(frozen=True)
class WordFormat:
    """How elements lie in words: `steps` of them in each word of `dtype`, each `bits` wide.

    Where words of 32 bits are read anew for each step, `dtype` is that of an element, and `lead` are before the first.
    """

    dtype: str
    steps: int
    bits: int
    lead: int = 0


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
# Those that are read anew for each step.
_SHIFTED_FORMATS = {
    "bfloat16": WordFormat("uint16", 2, 16, 1),
    "int8": WordFormat("int8", 4, 8, 3),
}
_SHIFTED_LANES = 8
_WORD_BITS = 32
# A cache line: more than any lead, and panels do not take the same places of a cache.
_PADDING_BYTES = 64


@dataclass(frozen=True)
class PanelLayout:
    """Panels of `vectors` times `lanes` columns, of elements `kind` (a key of `WORD_FORMATS`).

    `shifted`: words are read anew for each step.
    """

    kind: str
    lanes: int
    vectors: int
    shifted: bool = False

    @staticmethod
    def of(kind: str, columns: int, target: CpuTarget, group: int = 0) -> "PanelLayout":
        """The layout of a weight of so many columns: with tiles of six rows, accumulators fill the registers.

        Groups have `group` steps each; 0 if there is one.
        """
        lanes = target.lanes if kind != "int64" else target.lanes // 2
        most = 2 if target.registers == 16 else 4
        form = _SHIFTED_FORMATS.get(kind) if lanes == _SHIFTED_LANES else None
        shifted = form is not None and group % form.steps == 0
        return PanelLayout(kind, lanes, min(most, -(-columns // lanes)), shifted)

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors

    @property
    def format(self) -> WordFormat:
        """The format of a word."""
        return (_SHIFTED_FORMATS if self.shifted else WORD_FORMATS)[self.kind]

    @property
    def lowest_bit(self) -> int:
        """Of the element that a word is read for, if it is read anew for each step."""
        return _WORD_BITS - self.format.bits

    def place_value(self, step: int) -> float:
        """What a kernel has for the integer 1 at a place of a word."""
        if self.kind == "int8" and self.shifted:
            return 2.0**self.lowest_bit
        last = self.format.steps - 1  # which is moved, not masked
        return 2.0 ** (step * self.format.bits) if self.kind == "int4" and step < last else 1.0

    def hold_zeros(self, zeros: np.ndarray) -> np.ndarray:
        """float32 zero points as kernels take them: of int4 what the sum of activations counts for, else as codes."""
        return -8 - zeros if self.kind == "int4" else zeros * np.float32(self.place_value(0))

    def panels(self, columns: int) -> int:
        """Panels that hold `columns`."""
        return -(-columns // self.width)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """`weight` `(depth, columns)` as `(panels, words, width)`, zero bits where there is no element; shifted, as
        elements `(panels, length)`.

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
        joined = np.ascontiguousarray(joined.transpose(1, 0, 2))
        if not self.shifted:
            return joined
        kept = joined.reshape(panels, -1).view(form.dtype)
        shifted = np.zeros((panels, kept.shape[1] + _PADDING_BYTES // kept.itemsize), form.dtype)
        shifted[:, form.lead : form.lead + kept.shape[1]] = kept
        return shifted

    def pad_columns(self, values: np.ndarray) -> np.ndarray:
        """`(..., columns)`, one value for each, with zeros up to whole panels."""
        *outer, columns = values.shape
        padded = np.zeros((*outer, self.panels(columns) * self.width), values.dtype)
        padded[..., :columns] = values
        return padded
