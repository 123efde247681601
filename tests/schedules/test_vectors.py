"""Functions over arrays of any size work in the widest vectors of each level, and bags of rows in registers.

The compiler writes the code of any level on any host: nothing runs here.
"""

import functools
import re
from collections.abc import Callable

import pytest
import tvm

from lowgemm import codegen, schedules, topi
from lowgemm.artifact.objects import compile_kernels, unaligned
from lowgemm.targets import LEVELS, CpuTarget

INT4 = topi.RowFormat(4, "float16")
INT8 = topi.RowFormat(8, "float32")
BAGS = {
    "float32": topi.BagForm("float32", 64, "float32", "int64", "int64", weights="index"),
    "bfloat16": topi.BagForm("bfloat16", 68, "bfloat16", "int32", "int32"),
    "int8": topi.BagForm(INT8, 96, "float32", "int64", "int64"),
    "int4": topi.BagForm(INT4, 64, "float16", "int64", "int64", pruned=True),
    # Twice as many columns as there are registers for.
    "int8-wide": topi.BagForm(INT8, 1024, "float32", "int64", "int64"),
}
# name -> the function for a target, and the instructions that take its elements; each must be there in full width
FUNCTIONS: dict[str, tuple[Callable[[CpuTarget], tvm.tirx.PrimFunc], tuple[str, ...]]] = {
    "quantize": (
        lambda t: schedules.schedule_pointwise(topi.quantizing("uint8", "all"), t),
        ("vmulps", "vminps", "vcvtps2dq"),
    ),
    "requantize": (
        lambda t: schedules.schedule_pointwise(topi.requantizing("uint8", "row", "int32"), t),
        ("vcvtdq2ps", "vmulps", "vpaddd"),
    ),
    "requantize-fixed": (
        lambda t: schedules.schedule_pointwise(
            topi.requantizing_fixed("uint8", "column", False), t
        ),
        ("vpmuldq",),
    ),
    "to-float16": (
        lambda t: schedules.schedule_pointwise(topi.converting("float32", "float16"), t),
        ("vcvtps2ph",),
    ),
    "to-bfloat16": (
        lambda t: schedules.schedule_pointwise(topi.converting("float32", "bfloat16"), t),
        ("vpaddd", "vpsrld"),
    ),
    "min-max": (schedules.schedule_min_max, ("vminps", "vmaxps")),
    "quantize-rows": (
        lambda t: schedules.schedule_quantize_rows(INT4, "float32", False, t),
        ("vminps", "vmaxps", "vmulps"),
    ),
    "dequantize-rows": (
        lambda t: schedules.schedule_dequantize_rows(INT4, "float32", t),
        ("vpsrlvd", "vcvtdq2ps"),
    ),
    "transpose-8": (lambda t: schedules.schedule_transpose(8, t), ("vpunpcklbw", "vpunpckhbw")),
    "transpose-16": (lambda t: schedules.schedule_transpose(16, t), ("vpunpcklwd",)),
    "transpose-32": (lambda t: schedules.schedule_transpose(32, t), ("vpunpckldq|vunpcklps",)),
    **{
        f"bag-{name}": (
            lambda t, form=form: schedules.schedule_bags(form, t),
            ("vaddps",) if name == "bfloat16" else ("vfmadd231ps",),
        )
        for name, form in BAGS.items()
    },
}


# Of levels with vectors of one width the code is the same: these have no products of bytes.
WIDTHS = ("avx2", "avx512_vnni")


@functools.cache
def assembly(name: str, level: str) -> list[str]:
    """The instructions of one of `FUNCTIONS`, with the arguments of users."""
    func = FUNCTIONS[name][0](LEVELS[level]).with_attr("global_symbol", "main")
    module = tvm.IRModule({"main": unaligned(func)})
    compiled = compile_kernels(module, codegen.llvm_target(LEVELS[level]))
    return [line.strip() for line in compiled.mod.inspect_source("asm").splitlines()]


def full(instruction: str, level: str, lines: list[str]) -> list[str]:
    """The lines with `instruction` (a pattern) in the widest registers."""
    register = "zmm" if LEVELS[level].vector_bits == 512 else "ymm"
    return [line for line in lines if re.match(rf"(?:{instruction})\s.*%{register}", line)]


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *((name, level) for name in FUNCTIONS for level in WIDTHS),
        *(
            (name, level)
            for name in ("quantize", "bag-int8")
            for level in LEVELS
            if level not in WIDTHS
        ),
    ],
)
def test_vectors_are_full(name: str, level: str) -> None:
    lines = assembly(name, level)
    for instruction in FUNCTIONS[name][1]:
        assert full(instruction, level, lines), instruction
    # A row or a bag divides a number, no vector is divided.
    assert not [line for line in lines if line.startswith("vdivps")]


@pytest.mark.parametrize("level", WIDTHS)
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("bag-")])
def test_bags_stay_in_registers(name: str, level: str) -> None:
    """Nothing is added up element by element, and no sum goes through memory before it is done."""
    lines = assembly(name, level)
    begin = lines.index(".L__tvm_parallel_lambda:")
    body = lines[
        begin : next(i for i, line in enumerate(lines[begin:], begin) if "func_end" in line)
    ]
    scalar = r"v(addss|fmadd\d+ss|cvtsi2ss|cvtdq2ps\s.*%xmm)"
    assert not [line for line in body if re.match(scalar, line)]
    # What is only written is the line that aligns the stack.
    spilled = r"v\w+\s+-?\d*\(%r[sb]p"
    assert not [line for line in body if re.match(spilled, line)]
    assert any(line.startswith("prefetcht0") for line in body)
