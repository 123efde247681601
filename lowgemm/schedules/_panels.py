"""Loops over tiles of rows and panels of columns, for products with any number of rows and one packed weight.

    few rows:
      for panels (parallel):                one tile of all rows; several panels at once where one alone has too few
        tile                                accumulators to keep the multipliers busy
    many rows:
      for block of rows, panels (parallel):
        for tile in block                   rows are cut evenly into as few tiles as there can be, whose heights differ
                                            by one at most

All sizes are symbolic. What a tile does is built once for each height that occurs. These functions are written with
TVM's builder, since a schedule cannot choose among heights at run time; they emit their loops where they are called.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

# Low blocks have a tile for so many bytes of weights, in whose time these are read, and so many tiles at least.
_BYTES_A_TILE = 256 * 1024
_LEAST_TILES = 2
# artifact.objects.EXACT_BUFFERS
_EXACT_BUFFERS = "lowgemm.exact_buffers"


@dataclass(frozen=True)
class PanelConfig:
    """The knobs of a panel product.

    A tile has at most `rows` rows. `several[i]` panels are taken at once where there are `i + 1` rows in all. A block
    has at most `block` tiles, and at most `together` panels.
    """

    rows: int
    several: tuple[int, ...]
    block: int
    together: int

    @property
    def lowest(self) -> int:
        """The least height of a tile where there are more rows than `several` is for."""
        few = len(self.several)
        return min(m // -(-m // self.rows) for m in range(few + 1, few + 4 * self.rows))


@contextlib.contextmanager
def when(condition) -> Iterator[None]:
    """What is emitted inside runs where `condition` holds."""
    with T.If(condition), T.Then():
        yield


def few_rows(
    m,
    panels,
    config: PanelConfig,
    body: Callable[[Any, Any, Callable], None],
) -> None:
    """Emit the product of as many rows as `config.several` is for.

    `body(panel, panels, choose)` emits that of all rows and as many panels. There, `choose(tile)` emits
    `tile(rows, panels)` for the numbers, then constants, that there may be, and which of them runs.
    """
    several = fixed(_chosen(m, config.several))
    with T.parallel(0, tirx.truncdiv(panels + several - 1, several)) as group:
        first = fixed(group * several)
        whole = fixed(tirx.Select(first + several <= panels, size(1), size(0))) == 1
        with T.serial(0, tirx.Select(whole, size(1), panels - first)) as piece:

            def choose(tile: Callable[[int, int], None]) -> None:
                # The tallest first: then LLVM 22 leaves its accumulators in registers, where otherwise it spills some.
                for rows, together in reversed(list(enumerate(config.several, 1))):
                    with when(m == rows):
                        if together == 1:
                            tile(rows, 1)
                            continue
                        with T.If(whole):
                            with T.Then():
                                tile(rows, together)
                            with T.Else():
                                tile(rows, 1)

            body(fixed(first + piece), fixed(tirx.Select(whole, several, size(1))), choose)


def size(value: int):
    """A constant of the type that sizes and indices have: with 64 bits, no address needs to be extended in a loop."""
    return tirx.const(value, "int64")


def fixed(value):
    """`value` as a variable of which TVM knows nothing: it would try to simplify what is computed with it for long."""
    cell = T.alloc_buffer((1,), "int64")
    T.buffer_store(cell, value, [size(0)])
    return T.bind(cell[size(0)])


def _chosen(m, values: tuple[int, ...]):
    """`values[m - 1]`."""
    chosen = size(values[-1])
    for index, value in reversed(list(enumerate(values[:-1]))):
        if value != values[-1]:
            chosen = tirx.Select(m == index + 1, size(value), chosen)
    return chosen


class RowBlock:
    """Neighbouring tiles of rows, as the loops see them that `many_rows` has open: block `number` of `blocks`."""

    def __init__(self, m, config: PanelConfig, tiles, blocks, number) -> None:
        self._config = config
        self._low = fixed(tirx.truncdiv(m, tiles))
        self._more = fixed(tirx.truncmod(m, tiles))
        self._first = fixed(tirx.truncdiv(number * tiles, blocks))
        self._last = fixed(tirx.truncdiv((number + 1) * tiles, blocks))
        self.row = fixed(self._start(self._first))
        self.rows = fixed(self._start(self._last) - self.row)

    def _start(self, tile):
        return tile * self._low + tirx.min(tile, self._more)

    def each(self, tile: Callable[[Any, int], None]) -> None:
        """Emit a loop over the tiles; `tile(row, rows)` emits that of `rows` rows from the block's `row` on."""
        with T.serial(self._first, self._last) as number:
            row = fixed(self._start(number) - self.row)
            rows = fixed(self._low + tirx.Select(number < self._more, size(1), size(0)))
            for height in range(self._config.lowest, self._config.rows + 1):
                with when(rows == height):
                    tile(row, height)


def many_rows(
    m,
    panels,
    tasks,
    config: PanelConfig,
    body: Callable[[RowBlock, Any, Any], None],
    weight_bytes=None,
) -> None:
    """Emit the product of more rows, in at least `tasks` parallel tasks if there is enough to do.

    `body(block, panel, panels)` emits that of a block of rows and neighbouring panels, at most `config.together`.

    If the body begins with work on its rows, `weight_bytes` says how much it reads beside them. Of low blocks rows stay
    near, and fewer tasks have the same rows to work on; but large weights come from afar for each block.
    """
    tiles = fixed(tirx.truncdiv(m + config.rows - 1, config.rows))
    blocks = fixed(tirx.truncdiv(tiles + config.block - 1, config.block))
    if weight_bytes is not None:
        height = tirx.max(tirx.truncdiv(weight_bytes, size(_BYTES_A_TILE)), size(_LEAST_TILES))
        blocks = fixed(tirx.max(blocks, tirx.truncdiv(tiles, height)))
    most = tirx.min(tirx.truncdiv(blocks * panels, tasks), size(config.together))
    together = fixed(tirx.max(most, size(1)))
    parts = fixed(tirx.truncdiv(panels + together - 1, together))
    with T.parallel(0, blocks * parts) as task:
        first = fixed(tirx.truncmod(task, parts) * together)
        block = RowBlock(m, config, tiles, blocks, fixed(tirx.truncdiv(task, parts)))
        body(block, first, fixed(tirx.min(together, panels - first)))


class Vectors:
    """A temporary array of vectors of `lanes` elements."""

    def __init__(self, count: int, lanes: int, dtype: str = "float32") -> None:
        self._lanes = lanes
        self.elements = T.alloc_buffer((count * lanes,), dtype)

    def __getitem__(self, index):
        return self.elements[self._at(index)]

    def __setitem__(self, index, value) -> None:
        T.buffer_store(self.elements, value, [self._at(index)])

    def _at(self, index):
        return T.ramp(index * self._lanes, 1, self._lanes)


class Registers:
    """Vectors that LLVM keeps in registers: each a buffer of its own, small enough for TVM to leave it on the stack."""

    def __init__(self, count: int, lanes: int, dtype: str = "float32") -> None:
        self._each = [Vectors(1, lanes, dtype) for _ in range(count)]

    def __len__(self) -> int:
        return len(self._each)

    def __getitem__(self, index: int):
        return self._each[index][0]

    def __setitem__(self, index: int, value) -> None:
        self._each[index][0] = value


def function_attributes() -> None:
    """Mark the function that is open: arguments do not overlap, and temporary arrays are as large as they must be."""
    T.func_name("main")
    T.func_attr({"tirx.noalias": True, _EXACT_BUFFERS: True})
