"""Embedding bags: sums of the rows of a table that lists of indices name."""

from dataclasses import dataclass

from lowgemm.topi._arith import fma
from lowgemm.topi._narrow import stored, widened
from lowgemm.topi._rowwise import RowFormat

ROW_FORMATS = {
    "int8": RowFormat(8, "float32"),
    "int4": RowFormat(4, "float16"),
    "int2": RowFormat(2, "float16"),
}


@dataclass(frozen=True)
class BagForm:
    """The variant of the operator.

    dst[b, j] = factor(b) * sum over p in [offsets[b], offsets[b + 1]) of weight(p) * table[row(indices[p]), j]

    summed in float32 in the order of p: acc = fma(weight, x, acc) for a row of floats, and
    acc = fma(weight * scale, code, acc + weight * bias) for a row of codes. It is FBGEMM's `EmbeddingSpMDM`.

    `table` is float32, float16, bfloat16, or a key of `ROW_FORMATS`; `columns` the length of its rows; `result` the
    float type of dst. `weights` is None, "index" (one for each index) or "position" (one for each place in a bag).
    `mean` divides by the number of indices in a bag: it multiplies by float32(1 / count). `pruned` says that row(i) is
    mapping[i], and that a row of which that is -1 counts as zeros.
    """

    table: str
    columns: int
    result: str
    indices: str
    offsets: str
    weights: str | None = None
    mean: bool = False
    pruned: bool = False

    @property
    def format(self) -> RowFormat | None:
        """How a row of codes is held; None for floats."""
        return ROW_FORMATS.get(self.table)

    @property
    def element(self) -> str:
        """The element type of the table's buffer."""
        return "uint8" if self.format else stored(self.table)

    @property
    def row_elements(self) -> int:
        """Elements of that type in a row."""
        return self.format.row_bytes(self.columns) if self.format else self.columns

    def factors(self, read, weight):
        """What a row is multiplied with: of a row of codes, its scale and bias; times the weight, if there is one.

        `read(offset, count)` gives elements of the row.
        """
        if self.format is None:
            return (weight,)
        values = self.format.scale_and_bias(read, self.columns)
        return tuple(v if weight is None else weight * v for v in values)

    def add(self, acc, read, start: int, lanes: int, factors: tuple):
        """`acc`, the sums of the columns `[start, start + lanes)`, and one more row."""
        if self.format is not None:
            scale, bias = factors
            return fma(self.format.codes(read, start, lanes), scale, acc + bias)
        value = widened(read(start, lanes), self.table)
        return acc + value if factors[0] is None else fma(value, factors[0], acc)
