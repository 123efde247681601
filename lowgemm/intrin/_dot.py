"""Integer dot products accumulated in 32 bits, as s_tir tensor intrinsics.

Two forms of one instruction:

    broadcast   C[i] += sum_k A[k]    * B[i, k]     GEMM and convolution: one activation group against `lanes` outputs
    lanewise    C[i] += sum_k A[i].k * B[i, k]      depthwise: every lane has its own channel

In the lanewise form A[i] is one word of the `depth` bytes of a lane, the first one lowest, and the lanes have two axes,
16-byte chunks of 32-bit sums and these (see `packing.DepthwisePacking`). vpmovzxbw widens bytes as it loads them.

Levels with VNNI multiply u8 by s8 and sum four products (vpdpbusd). The others widen both operands to 16 bits and sum
two (vpmaddwd), which is exact for every 8-bit operand. vpmaddubsw, which saturates at 16 bits, is for targets that say
how much of the weights sums to less (`CpuTarget.summing`): it takes the operands of VNNI, and the sums of one or two
groups of four go to the accumulator at a time:

    broadcast   C[i] += sum_{s, k} A[s, k] * B[s, i, k]

Where which two go together is data, no intrinsic of a fixed form is matched: `byte_products` and `accumulate_sums` are
its parts.
"""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from lowgemm.intrin import _script
from lowgemm.intrin._llvm import intrinsic
from lowgemm.packing import word_element, word_type
from lowgemm.targets import CpuTarget
from lowgemm.topi import wrapping_sum


@dataclass(frozen=True)
class Dot:
    """A registered intrinsic: `lanes` accumulators of 32 bits, each adding `depth` products of `lhs` by `rhs`.

    With `summed`, it adds so many times `depth`: the operands have that axis more.
    """

    name: str
    lanes: int
    depth: int
    lhs: str
    rhs: str
    summed: int = 1


def broadcast_dot(target: CpuTarget, lanes: int, widened: bool = True) -> Dot:
    """The dot product that broadcasts `depth` activations to `lanes` (8 or 16) outputs, on `target`.

    Where the instruction takes 16-bit weights, `widened` says that they are in memory as such; otherwise the intrinsic
    loads 8-bit weights and widens them itself, for kernels that use each weight too few times to store it again.
    """
    if target.summed:
        return _summed_dot(target.summed, lanes)
    return _dot(_instruction(target), lanes, True, widened or target.dot_depth == 4)


def lanewise_dot(target: CpuTarget, lanes: int) -> Dot:
    """The dot product whose lanes each have operands of their own, on `target`."""
    return _dot(_instruction(target), lanes, False, True)


def _instruction(target: CpuTarget) -> str:
    if target.dot_depth == 4:
        return "vpdpbusd"
    return "vpdpwssd" if target.vnni else "vpmaddwd"


@functools.cache
def _dot(instruction: str, lanes: int, broadcast: bool, widened: bool) -> Dot:
    depth = 4 if instruction == "vpdpbusd" else 2
    lhs = "int16" if broadcast and depth == 2 else "uint8"
    rhs = "int16" if widened and depth == 2 else "int8"
    name = f"lowgemm_{instruction}_{lanes}x{depth}_{rhs}_{'broadcast' if broadcast else 'lanewise'}"
    dot = Dot(name, lanes, depth, lhs, rhs)
    desc, impl = (
        (_broadcast_desc, _broadcast_impl) if broadcast else (_lanewise_desc, _lanewise_impl)
    )
    TensorIntrin.register(name, desc(dot), impl(dot, _accumulate(dot, instruction)))
    return dot


@functools.cache
def _summed_dot(summed: int, lanes: int) -> Dot:
    name = f"lowgemm_vpmaddubsw_{lanes}x{summed}x4_broadcast"
    dot = Dot(name, lanes, 4, "uint8", "int8", summed)
    desc = _broadcast_desc(dot) if summed == 1 else _summed_desc(dot)
    TensorIntrin.register(name, desc, _summed_impl(dot))
    return dot


def _summed_desc(dot: Dot):
    lanes, depth, summed = dot.lanes, dot.depth, dot.summed

    @_script.prim_func(s_tir=True)
    def desc(
        A: T.Buffer((summed * depth,), "uint8", offset_factor=1),
        B: T.Buffer((summed, lanes, depth), "int8", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0 : summed * depth], B[0:summed, 0:lanes, 0:depth])
            T.writes(C[0:lanes])
            for i, k in T.grid(lanes, summed * depth):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(
                        B[vk // depth, vi, vk % depth], "int32"
                    )

    return desc


_IN_MEMORY = """
define internal <{bytes} x i8> @{repeat}(ptr %first, i16 %start, ptr %run) alwaysinline {{
  %begin = ptrtoint ptr %first to i64
  %end = ptrtoint ptr %run to i64
  %further = sub i64 %end, %begin
  %at = zext i16 %start to i64
  %near = getelementptr i8, ptr %first, i64 %at
  %address = getelementptr i8, ptr %near, i64 %further
  %word = load i32, ptr %address, align 1
  %one = insertelement <{lanes} x i32> poison, i32 %word, i64 0
  %each = shufflevector <{lanes} x i32> %one, <{lanes} x i32> poison, <{lanes} x i32> zeroinitializer
  %bytes = bitcast <{lanes} x i32> %each to <{bytes} x i8>
  ret <{bytes} x i8> %bytes
}}
define internal <{words} x i16> @{name}(<{bytes} x i8> %a, ptr %b) alwaysinline {{
  %weights = load volatile <{bytes} x i8>, ptr %b, align 1
  %sums = call <{words} x i16> @{instruction}(<{bytes} x i8> %a, <{bytes} x i8> %weights)
  ret <{words} x i16> %sums
}}
declare <{words} x i16> @{instruction}(<{bytes} x i8>, <{bytes} x i8>)
"""


_DOT_IN_MEMORY = """
define internal <{lanes} x i32> @{name}(<{lanes} x i32> %sums, <{bytes} x i8> %a, ptr %b) alwaysinline {{
  %weights = load volatile <{bytes} x i8>, ptr %b, align 1
  %all = call <{lanes} x i32> @{instruction}(<{lanes} x i32> %sums, <{bytes} x i8> %a, <{bytes} x i8> %weights)
  ret <{lanes} x i32> %all
}}
declare <{lanes} x i32> @{instruction}(<{lanes} x i32>, <{bytes} x i8>, <{bytes} x i8>)
"""


def byte_products(a, b, lanes: int) -> Any:
    """vpmaddubsw: each lane's four bytes of `a` by those of `b`; sums of two products in 16 bits, saturated."""
    instruction = T.llvm_lookup_intrinsic_id(intrinsic("vpmaddubsw", lanes))
    return T.call_llvm_pure_intrin(instruction, a, b, dtype=f"int16x{2 * lanes}")


def byte_products_in_memory(a, b, lanes: int) -> Any:
    """`byte_products` with the vector at the address `b`, inside of what is marked with `in_memory_code`.

    Each multiplication reads it for itself. LLVM otherwise loads a vector once for all pixels of a tile, into a
    register that an accumulator is then spilled for.
    """
    return T.call_extern(f"int16x{2 * lanes}", _in_memory(lanes), a, b)


def dot_in_memory(acc, a, b, lanes: int) -> Any:
    """vpdpbusd: `acc` plus each lane's four bytes of `a` by those at the address `b`, inside of what is marked with
    `dot_in_memory_code`; it is an operand of each, as in `byte_products_in_memory`."""
    return T.call_extern(f"int32x{lanes}", _dot_in_memory(lanes), acc, a, b)


def dot_in_memory_code(lanes: int) -> str:
    """The function of `dot_in_memory` in LLVM's language, for the pragma "pragma_import_llvm"."""
    names = {"name": _dot_in_memory(lanes), "instruction": intrinsic("vpdpbusd", lanes)}
    return _DOT_IN_MEMORY.format(**names, lanes=lanes, bytes=4 * lanes)


def repeated_from_memory(first, start, run, lanes: int) -> Any:
    """In each lane the four bytes from byte `start`, uint16, on of the run at the address `run`, inside of what is
    marked with `in_memory_code`.

    `start`, and how far `run` lies behind the address `first`, if that is constant, are part of the load's address:
    they take no instruction, as `start` does in TVM's indices, and all runs share the registers of the first one.
    """
    return T.call_extern(f"uint8x{4 * lanes}", _repeat(lanes), first, start, run)


def in_memory_code(lanes: int) -> str:
    """The functions of `byte_products_in_memory` and `repeated_from_memory` in LLVM's language, for the pragma
    "pragma_import_llvm"."""
    sizes = {"lanes": lanes, "words": 2 * lanes, "bytes": 4 * lanes}
    names = {
        "name": _in_memory(lanes),
        "repeat": _repeat(lanes),
        "instruction": intrinsic("vpmaddubsw", lanes),
    }
    return _IN_MEMORY.format(**names, **sizes)


def accumulate_sums(acc, sums, lanes: int) -> Any:
    """vpmaddwd with ones and vpaddd: `acc` plus both sums of 16 bits of each lane.

    LLVM is not told that it is a sum. The terms of a short one, whose loop it unrolls, it would add up in an order of
    its own, with partial sums for which there are no registers.
    """
    add = intrinsic("vpmaddwd", lanes)
    ones = T.broadcast(T.int16(1), 2 * lanes)
    widened: Any = T.call_llvm_pure_intrin(
        T.llvm_lookup_intrinsic_id(add), sums, ones, dtype=f"int32x{lanes}"
    )
    return opaque(acc + widened)


def opaque(value) -> Any:
    """int32, or a vector of it: the same, of which LLVM is not told what it is made of."""
    dtype = str(value.ty.dtype)
    fence = T.llvm_lookup_intrinsic_id("llvm.arithmetic.fence")
    floats = dtype.replace("int", "float")
    same = T.call_llvm_pure_intrin(fence, T.reinterpret(value, dtype=floats), dtype=floats)
    return T.reinterpret(same, dtype=dtype)


def repeated(word, lanes: int) -> Any:
    """Four bytes `word` in each lane."""
    whole = T.broadcast(T.reinterpret(word, dtype="int32"), lanes)
    return T.reinterpret(whole, dtype=f"uint8x{4 * lanes}")


def _in_memory(lanes: int) -> str:
    return f"lowgemm_byte_products_{lanes}"


def _dot_in_memory(lanes: int) -> str:
    return f"lowgemm_dot_{lanes}"


def _repeat(lanes: int) -> str:
    return f"lowgemm_repeated_{lanes}"


def _summed_impl(dot: Dot):
    lanes, depth, summed = dot.lanes, dot.depth, dot.summed
    acc_vector = f"int32x{lanes}"

    if summed == 1:

        @_script.prim_func(s_tir=True)
        def single(
            A: T.Buffer((depth,), "uint8", offset_factor=1),
            B: T.Buffer((lanes, depth), "int8", offset_factor=1),
            C: T.Buffer((lanes,), "int32", offset_factor=1),
        ) -> None:
            with T.sblock("root"):
                T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
                T.writes(C[0:lanes])
                C[T.ramp(T.int32(0), 1, lanes)] = accumulate_sums(
                    C.vload([0], dtype=acc_vector),
                    byte_products(
                        repeated(A.vload([0], "uint8x4"), lanes),
                        B.vload([0, 0], dtype=f"int8x{4 * lanes}"),
                        lanes,
                    ),
                    lanes,
                )

        return single

    @_script.prim_func(s_tir=True)
    def double(
        A: T.Buffer((summed * depth,), "uint8", offset_factor=1),
        B: T.Buffer((summed, lanes, depth), "int8", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0 : summed * depth], B[0:summed, 0:lanes, 0:depth])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = accumulate_sums(
                C.vload([0], dtype=acc_vector),
                byte_products(
                    repeated(A.vload([0], "uint8x4"), lanes),
                    B.vload([0, 0, 0], dtype=f"int8x{4 * lanes}"),
                    lanes,
                )
                + byte_products(
                    repeated(A.vload([depth], "uint8x4"), lanes),
                    B.vload([1, 0, 0], dtype=f"int8x{4 * lanes}"),
                    lanes,
                ),
                lanes,
            )

    return double


def _broadcast_desc(dot: Dot):
    lanes, depth, lhs, rhs = dot.lanes, dot.depth, dot.lhs, dot.rhs

    @_script.prim_func(s_tir=True)
    def broadcast_desc(
        A: T.Buffer((depth,), lhs, offset_factor=1),
        B: T.Buffer((lanes, depth), rhs, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, depth):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    return broadcast_desc


def _lanewise_desc(dot: Dot):
    depth, rhs, chunks = dot.depth, dot.rhs, dot.lanes // 4
    word = word_type(depth)

    @_script.prim_func(s_tir=True)
    def lanewise_desc(
        A: T.Buffer((chunks, 4), word, offset_factor=1),
        B: T.Buffer((chunks, 4, depth), rhs, offset_factor=1),
        C: T.Buffer((chunks, 4), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:chunks, 0:4], A[0:chunks, 0:4], B[0:chunks, 0:4, 0:depth])
            T.writes(C[0:chunks, 0:4])
            for k, q, i in T.grid(chunks, 4, depth):
                with T.sblock("update"):
                    vk, vq, vi = T.axis.remap("SSR", [k, q, i])
                    C[vk, vq] = C[vk, vq] + word_element(T.cast(A[vk, vq], "int32"), vi) * T.cast(
                        B[vk, vq, vi], "int32"
                    )

    return lanewise_desc


def _accumulate(dot: Dot, instruction: str) -> Callable[..., Any]:
    """The instruction, as a function of vectors of accumulators and operands."""
    lanes = dot.lanes
    acc_vector, wide = f"int32x{lanes}", f"int16x{2 * lanes}"

    def call(name: str, *operands) -> Any:
        return T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id(name), *operands, dtype=acc_vector
        )

    if instruction == "vpmaddwd":
        product = intrinsic("vpmaddwd", lanes)

        def accumulate(acc, a, b) -> Any:
            return wrapping_sum(acc, call(product, T.cast(a, wide), T.cast(b, wide)))

        return accumulate

    # LLVM 22 declares both operands as vectors of bytes or of 16-bit words, not of 32-bit ones.
    name = intrinsic(instruction, lanes)
    if instruction == "vpdpbusd":
        return lambda acc, a, b: call(name, acc, a, b)
    return lambda acc, a, b: call(name, acc, T.cast(a, wide), T.cast(b, wide))


def _broadcast_impl(dot: Dot, accumulate: Callable[..., Any]):
    lanes, depth, lhs, rhs = dot.lanes, dot.depth, dot.lhs, dot.rhs
    lhs_vector, rhs_vector = f"{lhs}x{lanes * depth}", f"{rhs}x{lanes * depth}"
    acc_vector, group = f"int32x{lanes}", f"{lhs}x{depth}"

    @_script.prim_func(s_tir=True)
    def broadcast_impl(
        A: T.Buffer((depth,), lhs, offset_factor=1),
        B: T.Buffer((lanes, depth), rhs, offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
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

    return broadcast_impl


def _lanewise_impl(dot: Dot, accumulate: Callable[..., Any]):
    lanes, depth, lhs, rhs = dot.lanes, dot.depth, dot.lhs, dot.rhs
    lhs_vector, rhs_vector = f"{lhs}x{lanes * depth}", f"{rhs}x{lanes * depth}"
    acc_vector, word, chunks = f"int32x{lanes}", word_type(depth), lanes // 4

    @_script.prim_func(s_tir=True)
    def lanewise_impl(
        A: T.Buffer((chunks, 4), word, offset_factor=1),
        B: T.Buffer((chunks, 4, depth), rhs, offset_factor=1),
        C: T.Buffer((chunks, 4), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:chunks, 0:4], A[0:chunks, 0:4], B[0:chunks, 0:4, 0:depth])
            T.writes(C[0:chunks, 0:4])
            C[0, T.ramp(T.int32(0), 1, lanes)] = accumulate(
                C.vload([0, 0], dtype=acc_vector),
                T.reinterpret(A.vload([0, 0], dtype=f"{word}x{lanes}"), dtype=lhs_vector),
                B.vload([0, 0, 0], dtype=rhs_vector),
            )

    return lanewise_impl
