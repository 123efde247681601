"""What a tile of accumulators needs, and which dot products a weight allows."""

from collections.abc import Callable

from lowgemm.quant import SUMMED
from lowgemm.targets import CpuTarget


def tile_registers(dots: int, vectors: int, target: CpuTarget) -> int:
    """Vector registers of a tile of `dots` accumulators, `vectors` of them side by side."""
    if target.summed:
        # A word of the left operand, whose place the sums take, and the ones that add them up. (With less, 3x4 and 2x6
        # tiles run at a third of the speed.)
        # Of words in pairs, several vectors' first sums wait for the second word, which is broadcast meanwhile.
        return dots + target.summed * vectors + (3 if target.paired and vectors > 1 else 2)
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
