"""The schedule of matrix transposition: tiles in registers, turned by interleaving."""

from collections.abc import Callable

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._vectors import load, store, when
from lowgemm.targets import CpuTarget

# Instructions interleave the elements of two vectors within each 16 bytes of them.
_CHUNK = 16
# Rows and columns that one task takes are so many bytes long: a square of them stays in the second cache.
_BLOCK = 256
_LINE = 64


def schedule_transpose(bits: int, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """dst[j, i] = src[i, j] of elements of 8, 16 or 32 bits, for any number of rows and columns.

    Arguments in order: src `(rows, columns)`, dst `(columns, rows)`, unsigned integers.

    A tile has as many columns as elements in 16 bytes, c, and its vectors hold 16 bytes of several rows. Interleaving
    them log2(c) times gives columns. The last tile of a row or column overlaps the one before it. A matrix narrower
    than a tile is copied element by element.
    """
    dtype = f"uint{bits}"
    columns_in_tile = _CHUNK * 8 // bits
    block = _BLOCK * 8 // bits
    rows, columns = map(_vectors.size, ("rows", "columns"))
    with _vectors.function() as made:
        src = _vectors.buffer_argument("src", (rows, columns), dtype)
        dst = _vectors.buffer_argument("dst", (columns, rows), dtype)

        def tiles(parts: int) -> Callable[[], None]:
            return lambda: _tiles(src, dst, rows, columns, parts, columns_in_tile, block)

        def elements() -> None:
            with build.parallel((rows + (block - 1)) // block) as part:
                begin = build.Bind(part * block)
                with (
                    build.serial(columns) as j,
                    build.serial(tirx.min(rows - begin, block)) as i,
                ):
                    build.buffer_store(dst, src[begin + i, j], [j, begin + i])

        parts = target.vector_bits // (8 * _CHUNK)
        wide = columns >= columns_in_tile
        tall = tirx.all(wide, rows >= parts * columns_in_tile)
        square = tirx.all(wide, rows >= columns_in_tile)
        when(tall, tiles(parts), lambda: when(square, tiles(1), elements))
    return made()


def _tiles(src, dst, rows, columns, parts: int, width: int, block: int) -> None:
    """Every tile of `parts * width` rows and `width` columns, square blocks of them in parallel."""
    height = parts * width
    down, across = block // height, block // width  # tiles of a block
    in_line = _LINE // (parts * _CHUNK)
    tile_rows = build.Bind((rows + (height - 1)) // height)
    tile_columns = build.Bind((columns + (width - 1)) // width)
    row_blocks = build.Bind((tile_rows + (down - 1)) // down)
    column_blocks = (tile_columns + (across - 1)) // across
    with build.parallel(row_blocks * column_blocks) as task:
        top = build.Bind(task % row_blocks * down)
        left = build.Bind(task // row_blocks * across)
        lines = build.Bind((tirx.min(tile_rows - top, down) + (in_line - 1)) // in_line)
        # What is written in one go is whole cache lines.
        with (
            build.serial(lines) as line,
            build.serial(tirx.min(tile_columns - left, across)) as c,
            build.unroll(in_line) as part,
        ):
            r = line * in_line + part
            row = build.Bind(tirx.min((top + r) * height, rows - height))
            column = build.Bind(tirx.min((left + c) * width, columns - width))
            vectors = [
                _joined([load(src, [row + (i + p * width), column], width) for p in range(parts)])
                for i in range(width)
            ]
            for j, vector in enumerate(_turned(vectors, parts, width)):
                store(dst, vector, [column + j, row], height)


def _joined(vectors: list):
    if len(vectors) == 1:
        return vectors[0]
    lanes = sum(v.ty.dtype.lanes for v in vectors)
    return tirx.Shuffle(vectors, list(range(lanes)))


def _turned(vectors: list, parts: int, width: int) -> list:
    """The columns of the matrices in the parts of `vectors`, each in the part of all results where its matrix was.

    Interleaving vector i with vector i + width / 2, all at once, moves the highest bit of the row's number to the
    lowest place of the column's; after log2(width) times the two have changed places.
    """
    half = width // 2
    low, high = [], []
    for p in range(parts):
        for k in range(width):
            (low if k < half else high).extend([p * width + k, (parts + p) * width + k])
    for _ in range(width.bit_length() - 1):
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [build.Bind(tirx.Shuffle([a, b], part)) for a, b in pairs for part in (low, high)]
    return vectors
