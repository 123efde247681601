"""Blocks of matrix products on AMX tiles."""

from dataclasses import dataclass

from lowgemm.packing import ConvPacking, ConvShape, DotLayout
from lowgemm.targets import TILE_BYTES, TILE_COLUMNS, TILE_ROWS


@dataclass(frozen=True)
class TileConfig:
    """A product on AMX tiles: blocks of up to `rows` rows by `vectors` vectors of 16 columns.

    Two by two tiles of sums, two of the left operand and two of the right one are all eight registers.
    """

    rows: int
    vectors: int

    def __post_init__(self) -> None:
        if self.rows not in (TILE_ROWS, 2 * TILE_ROWS) or self.vectors not in (1, 2):
            raise ValueError(
                f"{self}: registers are for {TILE_ROWS} or {2 * TILE_ROWS} rows, 1 or 2 vectors"
            )

    @property
    def row_tiles(self) -> int:
        """Tiles that the rows take."""
        return self.rows // TILE_ROWS


def tile_packing(depth: int, columns: int, in_dtype: str) -> ConvPacking:
    """The layout of a weight `(depth, columns)` for left matrices of `in_dtype`, uint8 or int8.

    The depth is cut into equal steps of at most 64 bytes: tiles take fewer bytes a row, instead of padding. (They are
    at least 8 bytes, because a loop of one turn is none to tensorize.) Blocks are two vectors of columns wide.
    """
    groups = max(2, -(-depth // 4))
    step = 4 * -(-groups // -(-4 * groups // TILE_BYTES))
    panels = -(-columns // TILE_COLUMNS)
    panels += panels % 2 if panels > 1 else 0
    shape = ConvShape(1, 1, 1, depth, panels * TILE_COLUMNS, (1, 1))
    return ConvPacking.of(shape, DotLayout(TILE_COLUMNS, 4, in_dtype, "int8", step))


def default_tile_configs(packing: ConvPacking) -> list[TileConfig]:
    """The configuration for blocks of 1, 2, ... rows: two tiles of rows where one is too few.

    Two by two tiles of sums take four loads for four products, which are twice as long. With one tile of sums alone,
    each product would wait for the one before.
    """
    vectors = min(2, packing.panels)
    few, many = (TileConfig(rows, vectors) for rows in (TILE_ROWS, 2 * TILE_ROWS))
    return [few] * few.rows + [many] * (many.rows - few.rows)
