"""Register tiles of matrix products in 16-bit accumulators."""

from lowgemm.packing import ConvPacking, ConvShape, DotLayout
from lowgemm.targets import CpuTarget
from lowgemm.tiling._gemm import MOST_ROWS, GemmConfig


def acc16_packing(depth: int, columns: int, target: CpuTarget) -> ConvPacking:
    """The layout of a weight `(depth, columns)`: two int8 of the depth in each 16-bit lane.

    Its `group_out` is the columns to pad to, maybe some vectors more, so that something divides their number.
    """
    lanes = 2 * target.lanes if columns > 16 else 16
    least = -(-columns // lanes)
    panels = min(
        range(least, least + 4), key=lambda n: n * min(_cost(c) for c in _configs(n, target))
    )
    shape = ConvShape(1, 1, 1, depth, panels * lanes, (1, 1))
    return ConvPacking.of(shape, DotLayout(lanes, 2, "uint8", "int8"))


def acc16_configs(packing: ConvPacking, target: CpuTarget) -> list[GemmConfig]:
    """The heuristic choice for tiles of 1, 2, ... rows: the last one is that of a matrix with many rows."""
    best = _configs(packing.panels, target)
    costs = [_cost(config) for config in best]
    return best[: costs.index(min(costs)) + 1]


def _configs(panels: int, target: CpuTarget) -> list[GemmConfig]:
    found = []
    for rows in range(1, MOST_ROWS + 1):
        # Beside accumulators: the weights, a broadcast pair, a product.
        fitting = [
            GemmConfig(rows, vectors)
            for vectors in range(1, 9)
            if panels % vectors == 0 and rows * vectors + vectors + 2 <= target.registers
        ]
        found.append(min(fitting, key=_cost))
    return found


def _cost(config: GemmConfig) -> float:
    """Instructions for each vector of accumulators: product and sum, and its share of loads and the loop."""
    steps = config.rows * config.vectors
    # A pair is broadcast in two steps; a chain of additions needs others beside it to hide its latency.
    loads = config.rows + config.vectors
    return (2 * steps * max(1.0, 4 / steps) + loads + 1.0) / steps
