"""Table lookups of bytes, as loops around the instructions that look up in sixteen or 128 entries."""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import functools
import operator

import numpy as np
import tvm
from tvm.script import tirx as T

from lowgemm.topi import _script

# Vectors that go through the sixteen rows together: each row is loaded once for all of them.
_TOGETHER = 4
# A task is so many bytes: some two microseconds.
_TASK = 16384


def lookup_table(table: np.ndarray, width: int, permute: bool) -> np.ndarray:
    """The 256 entries of `table` (uint8) as `lookup` of the same `width` and `permute` takes them."""
    if permute:
        return table.reshape(4, 64)
    rows = table.reshape(2, 8, 16)
    steps = np.concatenate([rows[:, :1], rows[:, 1:] ^ rows[:, :-1]], axis=1)
    plain = table.reshape(256 // width, width)
    return np.concatenate([np.tile(steps.reshape(16, 16), (1, width // 16)), plain])


def lookup(size: int, width: int, permute: bool) -> tvm.tirx.PrimFunc:
    """dst[i] = table[src[i]] on bytes, `width` (32 or 64) at a time.

    With `permute` (AVX-512 VBMI) the table is `(4, 64)`: two vpermi2b look a vector up in its halves, and the codes'
    high bit chooses. Without it the table is `(16 + 256 / width, width)`. Of its first sixteen rows, row h holds the
    entries of the codes with the high nibble h, exclusive-or row h - 1's unless h is 0 or 8, repeated along the width
    so that one row is one vector. A vector is looked up in each (vpshufb) by its codes less 16 h, which saturate: what
    is negative finds 0. So the exclusive-or of what rows 0 to 7 give is the entry of a code below 128, that of rows 8
    to 15 by the code less 128 the entry of any other. The remaining rows are the plain table.
    """
    if size < width:
        return _short(size, width, permute)
    return _permuted(size) if permute else _shuffled(size, width)


def _short(size: int, width: int, permute: bool) -> tvm.tirx.PrimFunc:
    """A loop over fewer codes than a vector has."""
    first, rows, columns = (0, 4, 64) if permute else (16, 16 + 256 // width, width)

    @_script.prim_func(s_tir=True)
    def func(
        src: T.Buffer((size,), "uint8"),
        table: T.Buffer((rows, columns), "uint8"),
        dst: T.Buffer((size,), "uint8"),
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for i in T.serial(size):
            dst[i] = table[
                first + T.cast(src[i], "int32") // columns, T.cast(src[i], "int32") % columns
            ]

    return func


def _permuted(size: int) -> tvm.tirx.PrimFunc:
    width, vec = 64, "uint8x64"
    vectors, chunk = size // width, _TASK // width
    blocks = -(-vectors // chunk)
    across = T.parallel if blocks > 1 else T.serial
    rest = int(
        size % width > 0
    )  # one vector that ends where the codes do, and overlaps the one before

    def permute(table, codes, half):
        return _call(
            "llvm.x86.avx512.vpermi2var.qi.512",
            table.vload([half, 0], dtype=vec),
            codes,
            table.vload([half + 1, 0], dtype=vec),
            dtype=vec,
        )

    def pick(table, codes):
        below = codes < T.broadcast(T.uint8(128), width)
        return T.Select(below, permute(table, codes, 0), permute(table, codes, 2))

    @_script.prim_func(s_tir=True)
    def func(
        src: T.Buffer((size,), "uint8"),
        table: T.Buffer((4, 64), "uint8"),
        dst: T.Buffer((size,), "uint8"),
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for b in across(blocks):
            for v in T.serial(T.min(chunk, vectors - b * chunk)):
                dst[T.ramp((b * chunk + v) * width, 1, width)] = pick(
                    table, src.vload([(b * chunk + v) * width], dtype=vec)
                )
        for _ in T.serial(rest):
            dst[T.ramp(size - width, 1, width)] = pick(table, src.vload([size - width], dtype=vec))

    return func


def _shuffled(size: int, width: int) -> tvm.tirx.PrimFunc:
    vec, rows = f"uint8x{width}", 16 + 256 // width
    unit = _TOGETHER * width
    units, chunk = size // unit, _TASK // unit
    blocks = -(-units // chunk)
    across = T.parallel if blocks > 1 else T.serial
    # Behind the units come single vectors, the last of which ends where the codes do.
    last, singles = size - width, -(-(size % unit) // width)
    shuffle = "llvm.x86.avx2.pshuf.b" if width == 32 else "llvm.x86.avx512.pshuf.b.512"

    def step(table, codes, row):
        """What one row gives, to be joined to the others' by exclusive-or."""
        flip, less = T.cast(row // 8 * 128, "uint8"), T.cast(row % 8 * -16, "int8")
        index = _call(
            "llvm.sadd.sat",
            T.reinterpret(codes ^ T.broadcast(flip, width), dtype=f"int8x{width}"),
            T.broadcast(less, width),
            dtype=f"int8x{width}",
        )
        row = table.vload([row, 0], dtype=vec)
        return _call(shuffle, row, T.reinterpret(index, dtype=vec), dtype=vec)

    def pick(table, codes):
        return functools.reduce(operator.xor, (step(table, codes, row) for row in range(16)))

    @_script.prim_func(s_tir=True)
    def func(
        src: T.Buffer((size,), "uint8"),
        table: T.Buffer((rows, width), "uint8"),
        dst: T.Buffer((size,), "uint8"),
    ) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for b in across(blocks):
            for u in T.serial(T.min(chunk, units - b * chunk)):
                with T.sblock("unit"):
                    codes = T.sblock_alloc_buffer((unit,), "uint8", scope="local")
                    found = T.sblock_alloc_buffer((unit,), "uint8", scope="local")
                    for v in T.unroll(_TOGETHER):
                        codes[T.ramp(v * width, 1, width)] = src.vload(
                            [(b * chunk + u) * unit + v * width], dtype=vec
                        )
                        found[T.ramp(v * width, 1, width)] = T.broadcast(T.uint8(0), width)
                    for row in T.unroll(16):
                        for v in T.unroll(_TOGETHER):
                            found[T.ramp(v * width, 1, width)] = found.vload(
                                [v * width], dtype=vec
                            ) ^ step(table, codes.vload([v * width], dtype=vec), row)
                    for v in T.unroll(_TOGETHER):
                        dst[T.ramp((b * chunk + u) * unit + v * width, 1, width)] = found.vload(
                            [v * width], dtype=vec
                        )
        for i in T.serial(singles):
            dst[T.ramp(T.min(units * unit + i * width, last), 1, width)] = pick(
                table, src.vload([T.min(units * unit + i * width, last)], dtype=vec)
            )

    return func


def _call(instruction: str, *operands, dtype: str):
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(instruction), *operands, dtype=dtype)
