"""Products of 64-bit integers for every level: the multiplications that their inner loops are made of."""

import pytest
import tvm

from lowgemm import codegen
from lowgemm.artifact.objects import compile_kernels
from lowgemm.packing_panels import PanelLayout
from lowgemm.schedules import int64_gemm
from lowgemm.targets import LEVELS

from loops import count, innermost_loops, spills


@pytest.mark.parametrize("level", LEVELS)
def test_accumulators_stay_in_registers(level: str) -> None:
    target = LEVELS[level]
    whole = target.has("avx512dq")
    layout = PanelLayout.of("int64", 4096, target)
    module = tvm.IRModule({"main": int64_gemm(layout, target)})
    text = compile_kernels(module, codegen.llvm_target(target)).mod.inspect_source("asm")
    rows, register = (6, "zmm") if whole else (2, "ymm")
    wanted = {"vpmullq": rows * layout.vectors * whole}
    for each in ("vpmuludq", "vpmulld"):
        wanted[each] = rows * layout.vectors * (not whole)
    full = []
    for loop in innermost_loops(text):
        counts = {name: count(loop, name, register) for name in wanted}
        # LLVM may take two steps at a time.
        if counts in (wanted, {name: 2 * n for name, n in wanted.items()}):
            full.append(loop)
    assert full
    assert not any(map(spills, full))
