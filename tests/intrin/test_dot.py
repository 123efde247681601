"""Each dot product computes what its description says, on the operands that are hardest for it."""

import numpy as np
import pytest
import tvm
from tvm import s_tir, te

from lowgemm import codegen, intrin
from lowgemm.intrin import Dot
from lowgemm.packing import word_element
from lowgemm.targets import LEVELS

from isa import isas
from kernels import full_range

STEPS = 9


def compiled(dot: Dot, level: str, lanewise: bool):
    """C[i] = sum over STEPS of the dot product, with the accumulator in registers."""
    rhs = te.placeholder((STEPS, dot.lanes, dot.depth), dot.rhs, name="rhs")
    s, k = te.reduce_axis((0, STEPS), "s"), te.reduce_axis((0, dot.depth), "k")
    if lanewise:
        lhs = te.placeholder((STEPS, dot.lanes), "int32", name="lhs")

        def factor(i):
            return word_element(lhs[s, i], k, dot.depth)
    else:
        lhs = te.placeholder((STEPS, dot.depth), dot.lhs, name="lhs")

        def factor(i):
            del i
            return lhs[s, k].astype("int32")

    acc = te.compute(
        (dot.lanes,),
        lambda i: te.sum(factor(i) * rhs[s, i, k].astype("int32"), axis=[s, k]),
        name="acc",
    )
    out = te.compute((dot.lanes,), lambda i: acc[i], name="out")
    sch = s_tir.Schedule(te.create_prim_func([lhs, rhs, out]))
    block = sch.get_sblock("acc")
    sch.set_scope(block, 0, "local")
    i, s_loop, k_loop = sch.get_loops(block)
    sch.reorder(s_loop, i, k_loop)
    sch.decompose_reduction(block, s_loop)
    sch.tensorize(i, dot.name)
    return tvm.compile(sch.mod, target=codegen.llvm_target(LEVELS[level]))["main"]


def operands(dot: Dot, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """lhs `(STEPS, lanes, depth)`, rhs of the same shape. Where 16 bits hold them, both are still 8-bit codes."""
    rng = np.random.default_rng(3)
    shape = (STEPS, dot.lanes, dot.depth)
    limits = (0, 255) if dot.lhs == "uint8" else (-128, 255)
    if kind == "random":
        lhs = rng.integers(*limits, shape, endpoint=True)
        rhs = full_range(rng, shape, "int8")
    elif kind == "all-extreme":
        lhs, rhs = np.full(shape, 255), np.full(shape, -128)
    elif kind == "saturating-pairs":  # 255 * 127 twice is beyond 16 bits
        lhs, rhs = np.full(shape, 255), np.full(shape, 127)
    else:
        sign = np.indices(shape).sum(0) % 2
        lhs, rhs = np.where(sign, *limits[::-1]), np.where(sign, 127, -128)
    return lhs.astype(dot.lhs), rhs.astype(dot.rhs)


KINDS = ("random", "all-extreme", "saturating-pairs", "alternating")


def dots(level: str, lanewise: bool) -> list[Dot]:
    target = LEVELS[level]
    if lanewise:
        return [intrin.lanewise_dot(target, target.lanes)]
    every = [(lanes, widened) for lanes in {8, target.lanes} for widened in (True, False)]
    return list({intrin.broadcast_dot(target, *form) for form in every})


@pytest.mark.parametrize("lanewise", [False, True], ids=["broadcast", "lanewise"])
@pytest.mark.parametrize("level", isas())
def test_dot_product_is_exact(level: str, lanewise: bool) -> None:
    for dot in dots(level, lanewise):
        run = compiled(dot, level, lanewise)
        for kind in KINDS:
            lhs, rhs = operands(dot, kind)
            given = (
                np.ascontiguousarray(lhs).view(np.int32)[..., 0] if lanewise else lhs[:, 0].copy()
            )
            left = lhs if lanewise else lhs[:, :1]
            want = (left.astype(np.int64) * rhs.astype(np.int64)).sum((0, 2))
            got = tvm.runtime.tensor(np.full(dot.lanes, -1, np.int32))
            run(tvm.runtime.tensor(given), tvm.runtime.tensor(rhs), got)
            assert np.array_equal(got.numpy(), want), (dot.name, kind)


def test_an_intrinsic_is_registered_once() -> None:
    target = LEVELS["avx2"]
    assert intrin.broadcast_dot(target, 8) is intrin.broadcast_dot(target, 8)
    assert intrin.broadcast_dot(target, 8).name != intrin.lanewise_dot(target, 8).name


@pytest.mark.parametrize("level", list(LEVELS))
def test_operands_are_what_the_instruction_takes(level: str) -> None:
    target = LEVELS[level]
    dot = intrin.broadcast_dot(target, target.lanes)
    types = ("uint8", "int8") if target.dot_depth == 4 else ("int16", "int16")
    assert (dot.lanes, dot.depth, dot.lhs, dot.rhs) == (target.lanes, target.dot_depth, *types)
    narrow = intrin.broadcast_dot(target, target.lanes, widened=False)
    assert narrow.rhs == "int8"
