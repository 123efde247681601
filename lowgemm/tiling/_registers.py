"""What a tile of accumulators needs, and which dot products a weight allows."""

from collections.abc import Callable

import numpy as np

from lowgemm.packing import ConvPacking
from lowgemm.quant import SUMMED
from lowgemm.targets import CpuTarget

# In runs of so many words, and from so large a share of them on, pairs make up for a loop over the others.
_FEWEST_WORDS, _MOST_WORDS = 8, 2**16 - 1
_SHARE_OF_PAIRS = 0.6
_TILES_LOOKED_AT = 4


def tile_registers(dots: int, vectors: int, target: CpuTarget) -> int:
    """Vector registers of a tile of `dots` accumulators, `vectors` of them side by side."""
    if target.summed:
        # A word of the left operand, whose place the sums take, and the ones that add them up. (With less, 3x4 and 2x6
        # tiles run at a third of the speed.)
        return dots + target.summed * vectors + (3 if target.paired else 2)
    if target.dot_depth == 4:
        return dots + vectors + 1
    # A product beside weights and a broadcast, which it can overwrite where there is one weight vector.
    return dots + vectors + (1 if vectors == 1 else 2)


def summing_target(target: CpuTarget, fits: Callable[[CpuTarget], bool]) -> CpuTarget:
    """`target` with as many dot products summed in 16 bits as a weight allows.

    `fits` says whether the weight, packed for the target that it is given, does (`ConvPacking.sums_fit`).
    """
    views = [target.summing(groups) for groups in SUMMED]
    return next((view for view in views if view != target and fits(view)), target)


def pairs_pay(packing: ConvPacking, packed: np.ndarray, vectors: int) -> bool:
    """Whether enough words of a packed weight that fits may be summed in pairs, by a few tiles of `vectors` panels."""
    if not _FEWEST_WORDS <= packing.packed_shape[3] <= _MOST_WORDS:
        return False
    panel = packing.packed_shape[1:]
    tiles = packed.reshape(-1, vectors, *panel)
    some = tiles[:: -(-len(tiles) // _TILES_LOOKED_AT)]
    _, places = packing.pair(some.reshape(-1, *panel), vectors)
    return enough_pairs(places)


def enough_pairs(places: np.ndarray) -> bool:
    """Whether so many words are in pairs, as `places` of `ConvPacking.pair` say, that these pay."""
    words = places.shape[-1] - 1
    return bool(2 * places[..., -1].mean() >= _SHARE_OF_PAIRS * words)
