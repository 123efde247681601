"""Integer dot products of vectors of 32-bit words, for kernels whose loops no schedule makes."""

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from lowgemm.intrin._llvm import intrinsic
from lowgemm.targets import CpuTarget


def word_dot(target: CpuTarget, lanes: int) -> Callable[[Any, Any, Any], Any]:
    """`dot(acc, a, b)` of int32 vectors of `lanes` (8 or 16): acc plus the products of the words' fields, lane by lane.

    A word of `a` holds four uint8 and one of `b` four int8 where the target has VNNI (vpdpbusd); elsewhere both hold
    two int16 (vpmaddwd). The first field is in the lowest bits.
    """
    vector = f"int32x{lanes}"
    if target.dot_depth == 4:
        instruction, kinds = "vpdpbusd", ("uint8", "int8")
    else:
        instruction, kinds = "vpmaddwd", ("int16", "int16")
    name = intrinsic(instruction, lanes)
    count = lanes * target.dot_depth

    def dot(acc, a, b) -> Any:
        fields = [
            T.reinterpret(v, dtype=f"{kind}x{count}") for v, kind in zip((a, b), kinds, strict=True)
        ]
        operands = [acc, *fields] if target.dot_depth == 4 else fields
        found: Any = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id(name), *operands, dtype=vector
        )
        return found if target.dot_depth == 4 else acc + found

    return dot
