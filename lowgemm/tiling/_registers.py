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
    if target.vnni:
        return dots + vectors + 1
    # A product beside weights and a broadcast, which it can overwrite where there is one weight vector.
    return dots + vectors + (1 if vectors == 1 else 2)


def held_weights(dots: int, registers: int) -> int:
    """Weight vectors for which a tile of `dots` accumulators leaves a register, where words are in pairs.

    Beside them are ones, two words of a pixel and two products; other weights are operands in memory.
    """
    return max(0, registers - dots - 1 - 2 - 2)


def paired_cost(pixels: int, vectors: int, words: int, registers: int) -> float:
    """The time of a dot product where words are in pairs, by a tile of `pixels` by `vectors`, to that of a good one.

    Multiplications take three quarters of a cycle, and as much is free for 1.5 loads and 3.5 instructions. From 31
    layers with all tiles on a Zen 3: a tile that keeps to this is good, whichever it is, but for the words that it does
    not pair. More vectors share an order, and the fewer words there are the fewer pairs fit all.
    """
    dots = pixels * vectors
    held = min(held_weights(dots, registers), 2 * vectors)
    # Of two words: broadcasts, weights once or for each pixel, and where the words are.
    from_memory = 2 * pixels + held + (2 * vectors - held) * pixels
    loads = (from_memory + 2) / (2 * dots)
    instructions = (5 * dots + 2 * pixels + held + 5) / (2 * dots)
    alone = max(0.0, 1 - words / (66 * vectors - 18)) ** 2
    return (1 + alone / 6) * max(1.0, loads / 1.5) * max(1.0, 1 + (instructions - 3.5) / 4)


def summing_target(target: CpuTarget, fits: Callable[[CpuTarget], bool]) -> CpuTarget:
    """`target` with as many dot products summed in 16 bits as a weight allows.

    `fits` says whether the weight, packed for the target that it is given, does (`ConvPacking.sums_fit`).
    """
    views = [target.summing(groups) for groups in SUMMED]
    return next((view for view in views if view != target and fits(view)), target)
