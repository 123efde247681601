"""Weight-only products for every level: which instructions their inner loops are made of."""

import re
from dataclasses import replace

import pytest
import tvm

from lowgemm import codegen
from lowgemm.artifact.objects import EXACT_BUFFERS, compile_kernels
from lowgemm.packing_panels import PanelLayout
from lowgemm.schedules import float_gemm
from lowgemm.targets import LEVELS, CpuTarget
from lowgemm.topi import FloatGemmForm

from loops import count, innermost_loops, spills


def assembly(target: CpuTarget, kind: str, few: bool, rounded: bool = False) -> str:
    form = FloatGemmForm(PanelLayout.of(kind, 4096, target), rounded=rounded)
    module = tvm.IRModule({"main": float_gemm(form, few)})
    return compile_kernels(module, codegen.llvm_target(target)).mod.inspect_source("asm")


# What turns a vector of weights into float32: at 512 bits, and at 256 bits where that differs.
CONVERSIONS = {
    "float32": (),
    "float16": ("vcvtph2ps",),
    "bfloat16": ("vpmovzxwd", "vpslld"),
    "int8": ("vpmovsxbd", "vcvtdq2ps"),
    "int4": ("vpand|vandps|vpternlog",),
}
MASKS = {"bfloat16": ("vpblendw|vpand|vandps",), "int8": ("vpand|vandps", "vcvtdq2ps")}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", CONVERSIONS)
def test_loops_convert_in_registers(kind: str, level: str) -> None:
    """Full tiles: six rows of a panel, five of int4, whose words and masks take registers, too. A spilled accumulator
    makes the loop three times as slow."""
    target = LEVELS[level]
    register = "zmm" if target.vector_bits == 512 else "ymm"
    layout = PanelLayout.of(kind, 4096, target)
    for few in (True, False):
        text = assembly(target, kind, few)
        rows, steps = (5 if kind == "int4" else 6), layout.format.steps
        if register == "zmm" and not few:
            steps = 1  # weights are float32 in memory by then
        sums = rows * layout.vectors * max(steps, 2 if kind == "float32" else 4)
        loops = innermost_loops(text)
        full = [loop for loop in loops if count(loop, "vfmadd", register) == sums]
        assert full
        assert not any(map(spills, full))
        conversions = (MASKS if layout.shifted else CONVERSIONS)[kind]
        for pattern in conversions:
            assert re.search(rf"\t({pattern})\w*\t.*%{register}", text), pattern
        # A word's load is the mask's operand, and nothing widens or shuffles.
        assert not layout.shifted or not any(count(loop, "vpmov", "") for loop in full)


@pytest.mark.parametrize("few", [True, False], ids=["few", "many"])
def test_pairs_of_bfloat16_are_one_instruction(few: bool) -> None:
    target = LEVELS["avx512_vnni"]
    flags = (*target.llvm_features, "+avx512bf16")
    extended = replace(target, llvm_features=flags)
    full = [
        loop
        for loop in innermost_loops(assembly(extended, "bfloat16x2", few, rounded=True))
        if count(loop, "vdpbf16ps", "zmm") == 4 * 24
    ]
    assert full
    assert not any(map(spills, full))


def test_compilation_does_not_search_buffers() -> None:
    """Without the mark it takes seconds."""
    form = FloatGemmForm(PanelLayout("int8", 8, 2))
    for few in (True, False):
        assert EXACT_BUFFERS in float_gemm(form, few).attrs
