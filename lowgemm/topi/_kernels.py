"""Operators that write a part of their output, or look bytes up: as loops, because tensor expressions cannot."""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import numpy as np
import tvm
from tvm.script import tirx as T


def copy_into(rows: int, run: int, out_run: int, offset: int, dtype: str) -> tvm.tirx.PrimFunc:
    """dst[r, offset + i] = src[r, i]: one operand of a concatenation. src `(rows, run)`, dst `(rows, out_run)`."""

    @T.prim_func(s_tir=True)
    def func(src: T.Buffer((rows, run), dtype), dst: T.Buffer((rows, out_run), dtype)) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for r in T.serial(rows):
            for i in T.serial(run):
                with T.sblock("dst"):
                    vr, vi = T.axis.remap("SS", [r, i])
                    dst[vr, offset + vi] = src[vr, vi]

    return func


def lookup_table(table: np.ndarray, width: int, permute: bool) -> np.ndarray:
    """The 256 entries of `table` (uint8) as `lookup` of the same `width` and `permute` takes them."""
    if permute:
        return table.reshape(4, 64)
    return np.ascontiguousarray(np.tile(table.reshape(16, 16), (1, width // 16)))


def lookup(size: int, width: int, permute: bool) -> tvm.tirx.PrimFunc:
    """dst[i] = table[src[i]] on bytes, `width` (32 or 64) at a time.

    With `permute` (AVX-512 VBMI) the table is `(4, 64)`: two vpermi2b look a vector up in its halves, and the codes'
    high bit chooses. Without it the table is `(16, width)`: row `b >> 4` holds the entries of the codes with that high
    nibble, repeated along the width so that one row is one vector. A vector is looked up in all sixteen rows by its low
    nibbles (vpshufb), and the high nibble's four bits choose among the results in a tree of fifteen blends: about half
    an instruction a byte, where a scalar lookup takes three.
    """
    rows, columns = (4, 64) if permute else (16, width)
    vectors = size // width
    # A task is at most 32 KB: half a microsecond.
    chunk = max(d for d in range(1, 32768 // width + 1) if vectors % d == 0) if vectors else 1
    blocks = vectors // chunk
    tail = size - vectors * width
    vec = f"uint8x{width}"
    shuffle = "llvm.x86.avx2.pshuf.b" if width == 32 else "llvm.x86.avx512.pshuf.b.512"

    def entry(table, code):
        return table[T.cast(code, "int32") // (256 // rows), T.cast(code, "int32") % (256 // rows)]

    def permuted(table, codes):
        lower, upper = (
            T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpermi2var.qi.512"),
                table.vload([i, 0], dtype=vec),
                codes,
                table.vload([i + 1, 0], dtype=vec),
                dtype=vec,
            )
            for i in (0, 2)
        )
        return T.Select(codes < T.broadcast(T.uint8(128), width), lower, upper)

    def shuffled(table, codes):
        low = codes & T.broadcast(T.uint8(15), width)
        found = [
            T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(shuffle), table.vload([i, 0], dtype=vec), low, dtype=vec
            )
            for i in range(16)
        ]
        for bit in (16, 32, 64, 128):
            zero = (codes & T.broadcast(T.uint8(bit), width)) == T.broadcast(T.uint8(0), width)
            found = [T.Select(zero, found[i], found[i + 1]) for i in range(0, len(found), 2)]
        return found[0]

    pick = permuted if permute else shuffled

    if not blocks:

        @T.prim_func(s_tir=True)
        def short(
            src: T.Buffer((size,), "uint8"),
            table: T.Buffer((rows, columns), "uint8"),
            dst: T.Buffer((size,), "uint8"),
        ) -> None:
            T.func_attr({"global_symbol": "main", "tirx.noalias": True})
            for i in T.serial(size):
                dst[i] = entry(table, src[i])

        return short

    @T.prim_func(s_tir=True)
    def func(
        src: T.Buffer((size,), "uint8"),
        table: T.Buffer((rows, columns), "uint8"),
        dst: T.Buffer((size,), "uint8"),
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for b in T.parallel(blocks):
            for v in T.serial(chunk):
                dst[T.ramp((b * chunk + v) * width, 1, width)] = pick(
                    table, src.vload([(b * chunk + v) * width], dtype=vec)
                )
        for i in T.serial(tail):
            dst[vectors * width + i] = entry(table, src[vectors * width + i])

    return func
