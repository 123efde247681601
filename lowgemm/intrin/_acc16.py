# pyright: reportInvalidTypeForm=false
# (TVMScript's annotations are calls.)
"""Products of bytes accumulated in saturating 16-bit lanes (vpmaddubsw, vpaddsw), as s_tir tensor intrinsics.

    C[i] = clip16(C[i] + clip16(A[0] * B[i, 0] + A[1] * B[i, 1]))

It is one step of FBGEMM's 16-bit accumulation. The result depends on the order of the steps.
"""

import functools
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from lowgemm.intrin import _script
from lowgemm.intrin._llvm import intrinsic
from lowgemm.topi import saturated_pair, saturated_sum


@functools.cache
def saturating_dot(lanes: int) -> str:
    """The name of the intrinsic that broadcasts two uint8 to `lanes` (16 or 32) outputs with two int8 weights each."""
    name = f"lowgemm_vpmaddubsw_vpaddsw_{lanes}"
    multiply = intrinsic("vpmaddubsw", lanes // 2)
    vector = f"int16x{lanes}"

    def call(instruction: str, a, b) -> Any:
        return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(instruction), a, b, dtype=vector)

    def broadcast(a):
        pair = T.reinterpret(a.vload([0], "uint8x2"), dtype="int16")
        return T.reinterpret(T.broadcast(pair, lanes), dtype=f"uint8x{2 * lanes}")

    @_script.prim_func(s_tir=True)
    def desc(
        A: T.Buffer((2,), "uint8", offset_factor=1),
        B: T.Buffer((lanes, 2), "int8", offset_factor=1),
        C: T.Buffer((lanes,), "int16", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:2], B[0:lanes, 0:2])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                with T.sblock("update"):
                    vi = T.axis.spatial(lanes, i)
                    C[vi] = saturated_sum(C[vi], saturated_pair(A[0], B[vi, 0], A[1], B[vi, 1]))

    @_script.prim_func(s_tir=True)
    def impl(
        A: T.Buffer((2,), "uint8", offset_factor=1),
        B: T.Buffer((lanes, 2), "int8", offset_factor=1),
        C: T.Buffer((lanes,), "int16", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:2], B[0:lanes, 0:2])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = call(
                "llvm.sadd.sat",
                C.vload([0], dtype=vector),
                call(multiply, broadcast(A), B.vload([0, 0], dtype=f"int8x{2 * lanes}")),
            )

    TensorIntrin.register(name, desc, impl)
    return name
