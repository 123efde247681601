"""Integer dot products accumulated in 32 bits, as s_tir tensor intrinsics.

Two forms of one instruction:

    broadcast   C[i] += sum_k A[k]    * B[i, k]     GEMM and convolution: one activation group against `lanes` outputs
    lanewise    C[i] += sum_k A[i].k * B[i, k]      depthwise: every lane has its own channel

In the lanewise form A[i] is one 32-bit word that holds the `depth` operands of a lane, the first in the lowest bits,
and the lanes have two axes, 16-byte chunks and words in them (see `packing.DepthwisePacking`).

Levels with VNNI multiply u8 by s8 and sum four products (vpdpbusd). The others widen both operands to 16 bits and sum
two (vpmaddwd), which is exact for every 8-bit operand; vpmaddubsw, which saturates, is not used.
"""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import functools
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from lowgemm.packing import word_element
from lowgemm.targets import CpuTarget


@dataclass(frozen=True)
class Dot:
    """A registered intrinsic: `lanes` accumulators of 32 bits, each adding `depth` products of `lhs` by `rhs`."""

    name: str
    lanes: int
    depth: int
    lhs: str
    rhs: str


def broadcast_dot(target: CpuTarget, lanes: int, widened: bool = True) -> Dot:
    """The dot product that broadcasts `depth` activations to `lanes` (8 or 16) outputs, on `target`.

    Where the instruction takes 16-bit weights, `widened` says that they are in memory as such; otherwise the intrinsic
    loads 8-bit weights and widens them itself, for kernels that use each weight too few times to store it again.
    """
    vnni = target.dot_depth == 4
    return _dot(vnni, lanes, True, widened or vnni)


def lanewise_dot(target: CpuTarget, lanes: int) -> Dot:
    """The dot product whose lanes each have operands of their own, on `target`."""
    return _dot(target.dot_depth == 4, lanes, False, True)


@functools.cache
def _dot(vnni: bool, lanes: int, broadcast: bool, widened: bool) -> Dot:
    depth = 4 if vnni else 2
    lhs, rhs = ("uint8", "int8") if vnni else ("int16", "int16" if widened else "int8")
    instruction = "vpdpbusd" if vnni else "vpmaddwd"
    name = f"lowgemm_{instruction}_{lanes}x{depth}_{rhs}_{'broadcast' if broadcast else 'lanewise'}"
    dot = Dot(name, lanes, depth, lhs, rhs)
    TensorIntrin.register(name, _desc(dot, broadcast), _impl(dot, vnni, broadcast))
    return dot


def _desc(dot: Dot, broadcast: bool):
    lanes, depth, lhs, rhs = dot.lanes, dot.depth, dot.lhs, dot.rhs

    @T.prim_func(s_tir=True)
    def broadcast_desc(
        A: T.Buffer((depth,), lhs, offset_factor=1),
        B: T.Buffer((lanes, depth), rhs, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, depth):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    chunks = lanes // 4

    @T.prim_func(s_tir=True)
    def lanewise_desc(
        A: T.Buffer((chunks, 4), "int32", offset_factor=1),
        B: T.Buffer((chunks, 4, depth), rhs, offset_factor=1),
        C: T.Buffer((chunks, 4), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:chunks, 0:4], A[0:chunks, 0:4], B[0:chunks, 0:4, 0:depth])
            T.writes(C[0:chunks, 0:4])
            for k, q, i in T.grid(chunks, 4, depth):
                with T.sblock("update"):
                    vk, vq, vi = T.axis.remap("SSR", [k, q, i])
                    C[vk, vq] = C[vk, vq] + word_element(A[vk, vq], vi, depth) * T.cast(
                        B[vk, vq, vi], "int32"
                    )

    return broadcast_desc if broadcast else lanewise_desc


def _impl(dot: Dot, vnni: bool, broadcast: bool):
    lanes, depth, lhs, rhs = dot.lanes, dot.depth, dot.lhs, dot.rhs
    lhs_vector, rhs_vector = f"{lhs}x{lanes * depth}", f"{rhs}x{lanes * depth}"
    acc_vector = f"int32x{lanes}"
    group = f"{lhs}x{depth}"

    if vnni:
        # LLVM 22 declares both byte operands as vectors of bytes, not of 32-bit words.
        instruction = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"

        def accumulate(acc, a, b) -> Any:
            return T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(instruction), acc, a, b, dtype=acc_vector
            )
    else:
        instruction = "llvm.x86.avx2.pmadd.wd" if lanes == 8 else "llvm.x86.avx512.pmaddw.d.512"

        def accumulate(acc, a, b) -> Any:
            wide = b if rhs == "int16" else T.cast(b, f"int16x{lanes * depth}")
            return acc + T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(instruction), a, wide, dtype=acc_vector
            )

    @T.prim_func(s_tir=True)
    def broadcast_impl(
        A: T.Buffer((depth,), lhs, offset_factor=1),
        B: T.Buffer((lanes, depth), rhs, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = accumulate(
                C.vload([0], dtype=acc_vector),
                T.reinterpret(
                    T.broadcast(T.reinterpret(A.vload([0], group), dtype="int32"), lanes),
                    dtype=lhs_vector,
                ),
                B.vload([0, 0], dtype=rhs_vector),
            )

    chunks = lanes // 4

    @T.prim_func(s_tir=True)
    def lanewise_impl(
        A: T.Buffer((chunks, 4), "int32", offset_factor=1),
        B: T.Buffer((chunks, 4, depth), rhs, offset_factor=1),
        C: T.Buffer((chunks, 4), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:chunks, 0:4], A[0:chunks, 0:4], B[0:chunks, 0:4, 0:depth])
            T.writes(C[0:chunks, 0:4])
            C[0, T.ramp(T.int32(0), 1, lanes)] = accumulate(
                C.vload([0, 0], dtype=acc_vector),
                T.reinterpret(A.vload([0, 0], dtype=acc_vector), dtype=lhs_vector),
                B.vload([0, 0, 0], dtype=rhs_vector),
            )

    return broadcast_impl if broadcast else lanewise_impl
