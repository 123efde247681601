"""Embedding bags: sums of the rows of a table that lists of indices name."""

from dataclasses import dataclass

from lowgemm.topi._arith import fma
from lowgemm.topi._narrow import stored, widened
from lowgemm.topi._rowwise import RowFormat


@dataclass(frozen=True)
class BagForm:
    """The variant of the operator, whose numbers `reference.embedding_bag` defines.

    dst[b, j] = factor(b) * sum over p in [offsets[b], offsets[b + 1]) of weight(p) * table[row(indices[p]), j]

    summed in float32 in the order of p: acc = fma(x, weight, acc) for a row of floats, and
    acc = fma(code, weight * scale, acc + weight * bias) for a row of codes. It is FBGEMM's `EmbeddingSpMDM`.

    `table` is float32, float16 or bfloat16, or the format of rows of codes; `columns` the length of its rows; `result`
    the float type of dst, bfloat16 rounded `half_up` or to even. `indices` and `offsets` are int32 or int64; without
    offsets, bag b is index b. `weights` is None, "index" (one for each index) or "position" (one for each place in a
    bag). `mean` multiplies by float32(1 / count of the bag). `pruned` says that row(i) is mapping[i], and that -1 there
    adds nothing; else row(i) is i.
    """

    table: str | RowFormat
    columns: int
    result: str
    indices: str
    offsets: str | None
    weights: str | None = None
    mean: bool = False
    pruned: bool = False
    half_up: bool = False

    @property
    def format(self) -> RowFormat | None:
        """How a row of codes is held; None for floats."""
        return self.table if isinstance(self.table, RowFormat) else None

    @property
    def element(self) -> str:
        """The element type of the table's buffer."""
        return "uint8" if isinstance(self.table, RowFormat) else stored(self.table)

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
        assert isinstance(self.table, str)
        value = widened(read(start, lanes), self.table)
        return acc + value if factors[0] is None else fma(value, factors[0], acc)
