"""Operators that write a part of their output, or look bytes up: as loops, because tensor expressions cannot."""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

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


def lookup(size: int, width: int) -> tvm.tirx.PrimFunc:
    """dst[i] = table[src[i]] on bytes, `width` (32 or 64) at a time.

    The table is `(16, width)`: row `b >> 4` holds the entries of the codes with that high nibble, repeated along the
    width so that one row is one vector. A vector is looked up in all sixteen rows by its low nibbles (vpshufb), and the
    high nibble's four bits choose among the results in a tree of fifteen blends: about one instruction a byte, where a
    scalar lookup takes three.
    """
    vectors = size // width
    chunk = max(d for d in range(1, 65) if vectors % d == 0) if vectors else 1
    blocks = vectors // chunk
    tail = size - vectors * width
    vec = f"uint8x{width}"
    shuffle = "llvm.x86.avx2.pshuf.b" if width == 32 else "llvm.x86.avx512.pshuf.b.512"

    def pick(table, codes):
        low = codes & T.broadcast(T.uint8(15), width)
        rows = [
            T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(shuffle), table.vload([i, 0], dtype=vec), low, dtype=vec
            )
            for i in range(16)
        ]
        for bit in (16, 32, 64, 128):
            zero = (codes & T.broadcast(T.uint8(bit), width)) == T.broadcast(T.uint8(0), width)
            rows = [T.Select(zero, rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]
        return rows[0]

    if not blocks:

        @T.prim_func(s_tir=True)
        def short(
            src: T.Buffer((size,), "uint8"),
            table: T.Buffer((16, width), "uint8"),
            dst: T.Buffer((size,), "uint8"),
        ) -> None:
            T.func_attr({"global_symbol": "main", "tirx.noalias": True})
            for i in T.serial(size):
                dst[i] = table[T.cast(src[i], "int32") // 16, T.cast(src[i], "int32") % 16]

        return short

    @T.prim_func(s_tir=True)
    def func(
        src: T.Buffer((size,), "uint8"),
        table: T.Buffer((16, width), "uint8"),
        dst: T.Buffer((size,), "uint8"),
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for b in T.parallel(blocks):
            for v in T.serial(chunk):
                dst[T.ramp((b * chunk + v) * width, 1, width)] = pick(
                    table, src.vload([(b * chunk + v) * width], dtype=vec)
                )
        for i in T.serial(tail):
            dst[vectors * width + i] = table[
                T.cast(src[vectors * width + i], "int32") // 16,
                T.cast(src[vectors * width + i], "int32") % 16,
            ]

    return func
