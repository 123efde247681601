"""Register tiles of matrix products with any number of rows."""

from dataclasses import dataclass

from lowgemm.packing import ConvPacking, ConvShape, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._registers import tile_registers
from lowgemm.tiling._tiles import TileConfig, default_tile_configs, tile_packing

# Rows of a tile at most: for each number up to it there is a function.
MOST_ROWS = 8


@dataclass(frozen=True)
class GemmConfig:
    """The knobs: `rows` by `vectors` of accumulators in registers, and steps of the reduction that are unrolled."""

    rows: int
    vectors: int
    unroll: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.vectors, self.unroll) < 1:
            raise ValueError(f"{self}: every knob is at least 1")

    def check(self, target: CpuTarget) -> None:
        """Refuse a register tile that spills."""
        used = tile_registers(self.rows * self.vectors, self.vectors, target)
        if used > target.registers:
            raise ValueError(f"{self} needs {used} registers of {target.registers}")


def gemm_packing(
    depth: int, columns: int, target: CpuTarget, in_dtype: str = "uint8"
) -> ConvPacking:
    """The layout of a weight `(depth, columns)`; its `group_out` is the columns to pad to, maybe some vectors more.

    Register tiles take several vectors of columns at a time, and a number of them that nothing divides would leave
    tiles of one. `in_dtype` is the left matrix's, uint8 or int8; AMX has a product for either.
    """
    if target.tiles:
        return tile_packing(depth, columns, in_dtype)
    lanes = target.lanes if columns > 8 else 8
    least = -(-columns // lanes)

    def cost(panels: int) -> float:
        return panels * min(_cost(c, target) for c in _configs(panels, target))

    panels = min(range(least, least + 4), key=cost)
    shape = ConvShape(1, 1, 1, depth, panels * lanes, (1, 1))
    return ConvPacking.of(shape, dot_layout(target, lanes))


def gemm_staged(packing: ConvPacking, in_dtype: str, transposed: bool) -> bool:
    """Whether the left matrix must be copied into the operand dtype."""
    return in_dtype != packing.layout.lhs or transposed or packing.padded_run != packing.run


def default_gemm_configs(
    packing: ConvPacking, target: CpuTarget
) -> list[GemmConfig] | list[TileConfig]:
    """The heuristic choice for tiles of 1, 2, ... rows: the last one is that of a matrix with many rows."""
    if target.tiles:
        return default_tile_configs(packing)
    best = _configs(packing.panels, target)
    costs = [_cost(config, target) for config in best]
    return best[: costs.index(min(costs)) + 1]


def paired_panels(panels: int) -> int:
    """How many panels share an order of words, if a product has pairs of them: what tiles of all rows have."""
    return 2 - panels % 2


def _configs(panels: int, target: CpuTarget) -> list[GemmConfig]:
    found = []
    for rows in range(1, MOST_ROWS + 1):
        best = _best_vectors(rows, panels, target)
        if best is None:
            break
        found.append(best)
    return found


def _best_vectors(rows: int, panels: int, target: CpuTarget) -> GemmConfig | None:
    fitting = []
    each = paired_panels(panels) if target.paired else 1
    for vectors in range(each, 13, each):
        if panels % vectors:
            continue
        config = GemmConfig(rows, vectors)
        try:
            config.check(target)
        except ValueError:
            break
        fitting.append(config)
    return min(fitting, key=lambda config: _cost(config, target), default=None)


def _cost(config: GemmConfig, target: CpuTarget) -> float:
    """Instructions for each dot product: itself, and its share of loads, widenings and the loop."""
    wide = target.dot_depth == 2
    dots = config.rows * config.vectors
    loads = 0.5 * (config.rows + config.vectors) + (config.vectors if wide else 0)
    # A chain of additions needs several others beside it to hide its latency.
    chains = max(1.0, 8 / dots)
    each = 3 if target.summed else 2 if wide else 1
    return (each * dots * chains + loads + 2.0) / dots
