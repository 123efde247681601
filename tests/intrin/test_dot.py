"""Each dot product computes what its description says, on the operands that are hardest for it."""

import numpy as np
import pytest
import tvm
from tvm import s_tir, te

from lowgemm import codegen, intrin
from lowgemm.intrin import Dot
from lowgemm.packing import word_element, word_type
from lowgemm.quant import LARGEST_SUM, SUMMED
from lowgemm.targets import LEVELS

import emulated
from isa import isas
from kernels import full_range

STEPS = 9


def compiled(dot: Dot, level: str, lanewise: bool):
    """C[l, q] = sum over STEPS of the dot product, with the accumulator in registers."""
    lanes = (dot.lanes // 4, 4) if lanewise else (dot.lanes,)
    groups = (dot.summed,) if dot.summed > 1 else ()
    depth = dot.summed * dot.depth
    rhs = te.placeholder((STEPS, *groups, *lanes, dot.depth), dot.rhs, name="rhs")
    s, k = te.reduce_axis((0, STEPS), "s"), te.reduce_axis((0, depth), "k")
    if lanewise:
        lhs = te.placeholder((STEPS, *lanes), word_type(dot.depth), name="lhs")

        def factor(*at):
            return word_element(lhs[s, *at].astype("int32"), k)
    else:
        lhs = te.placeholder((STEPS, depth), dot.lhs, name="lhs")

        def factor(*at):
            del at
            return lhs[s, k].astype("int32")

    def weight(*at):
        return rhs[s, k // dot.depth, *at, k % dot.depth] if groups else rhs[s, *at, k]

    acc = te.compute(
        lanes,
        lambda *at: te.sum(factor(*at) * weight(*at).astype("int32"), axis=[s, k]),
        name="acc",
    )
    out = te.compute(lanes, lambda *at: acc(*at), name="out")
    sch = s_tir.Schedule(te.create_prim_func([lhs, rhs, out]))
    block = sch.get_sblock("acc")
    if len(lanes) > 1:  # of depthwise kernels, which say why
        sch.set_scope(block, 0, "local")
    *at, s_loop, k_loop = sch.get_loops(block)
    sch.reorder(s_loop, *at, k_loop)
    sch.decompose_reduction(block, s_loop)
    sch.tensorize(at[0], dot.name)
    if emulated.current is not None:
        call = emulated.functions(sch.mod, LEVELS[level])
        return lambda *tensors: call("main", *map(np.from_dlpack, tensors))
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


@pytest.mark.emulated
@pytest.mark.parametrize("lanewise", [False, True], ids=["broadcast", "lanewise"])
@pytest.mark.parametrize("level", isas())
def test_dot_product_is_exact(level: str, lanewise: bool) -> None:
    for dot in dots(level, lanewise):
        run = compiled(dot, level, lanewise)
        for kind in KINDS:
            lhs, rhs = operands(dot, kind)
            word = word_type(dot.depth)
            given = np.ascontiguousarray(lhs).view(word)[..., 0] if lanewise else lhs[:, 0].copy()
            left = lhs if lanewise else lhs[:, :1]
            want = (left.astype(np.int64) * rhs.astype(np.int64)).sum((0, 2))
            lanes = (-1, 4) if lanewise else (-1,)
            if lanewise:
                given = given.reshape(STEPS, *lanes)
            got = tvm.runtime.tensor(np.full(dot.lanes, -1, np.int32).reshape(lanes))
            packed = rhs.reshape(STEPS, -1, *lanes[1:], dot.depth)
            run(tvm.runtime.tensor(given), tvm.runtime.tensor(packed), got)
            assert np.array_equal(got.numpy().reshape(-1), want), (dot.name, kind)


@pytest.mark.parametrize("summed", SUMMED)
@pytest.mark.parametrize("level", isas("avx2", "avx512"))
def test_sums_in_16_bits_are_exact_for_the_largest_weights_that_fit(
    level: str, summed: int
) -> None:
    target = LEVELS[level].summing(summed)
    rng = np.random.default_rng(4)
    for lanes in {8, target.lanes}:
        dot = intrin.broadcast_dot(target, lanes)
        assert (dot.lhs, dot.rhs, dot.summed) == ("uint8", "int8", summed)
        run = compiled(dot, level, False)
        most = LARGEST_SUM // (2 * summed)
        shape = (STEPS, summed, lanes, dot.depth)
        for weights in (
            np.full(shape, most),
            np.full(shape, -most),
            rng.choice([-most, most], shape),
            # All that a lane may hold, in one of its weights.
            np.broadcast_to(127 * np.eye(4, dtype=int)[::2][:summed, None], shape),
        ):
            for codes in (
                np.full((STEPS, summed * 4), 255),
                rng.integers(0, 256, (STEPS, summed * 4)),
            ):
                lhs, rhs = codes.astype(np.uint8), weights.astype(np.int8)
                got = tvm.runtime.tensor(np.full(lanes, -1, np.int32))
                packed = rhs if summed > 1 else rhs[:, 0].copy()
                run(tvm.runtime.tensor(lhs), tvm.runtime.tensor(packed), got)
                groups = lhs.reshape(STEPS, summed, 1, 4).astype(np.int64)
                assert np.array_equal(got.numpy(), (groups * rhs).sum((0, 1, 3)))


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
