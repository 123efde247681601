# pyright: reportInvalidTypeForm=false
# (TVMScript's annotations are calls.)
"""Rearrangements between bytes and 32-bit lanes that work within 16 bytes, as s_tir tensor intrinsics.

    interleave      W[j, k, q] = the bytes X[0.., 16 k + 4 j + q] as one word         vpunpck
    channels        Y[i, c] = the byte X[c, i]                                        vpshufb
    narrow          Y[k, j, q] = the code nearest to C[j, k, q] as a byte             vpack

`j` counts four vectors, `k` the 16-byte chunks of one, `q` the 32-bit lanes of a chunk: `packing.DepthwisePacking`.
"""

import functools

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T
from tvm.script.ir_builder import tirx as build

from lowgemm.intrin import _script
from lowgemm.packing import word_type
from lowgemm.topi import saturated, word_of


@functools.cache
def interleave_rows(rows: int, distance: int, depth: int, chunks: int) -> str:
    """The intrinsic that interleaves `rows` rows of bytes, `distance` apart, into words of `depth` bytes: its name."""
    name = f"lowgemm_interleave_{rows}_{distance}_{depth}_{chunks}"
    size = chunks * 16
    span = (rows - 1) * distance + 1

    def word(x, column):
        return word_of([T.cast(x[i * distance, 0, 0, column], "int32") for i in range(rows)], depth)

    @_script.prim_func(s_tir=True)
    def desc(
        X: T.Buffer(
            (span, 1, 1, size),
            "uint8",
            offset_factor=1,
            strides=[T.int32(), T.int32(), T.int32(), 1],
        ),
        W: T.Buffer((4, chunks, 4), word_type(depth), offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(X[0:span, 0, 0, 0:size])
            T.writes(W[0:4, 0:chunks, 0:4])
            for j, k, q in T.grid(4, chunks, 4):
                with T.sblock("update"):
                    vj, vk, vq = T.axis.remap("SSS", [j, k, q])
                    W[vj, vk, vq] = word(X, vk * 16 + vj * 4 + vq)

    def load(x, row):
        if row >= rows:
            return T.broadcast(T.uint8(0), size)
        return x.vload([row * distance, 0, 0, 0], dtype=f"uint8x{size}")

    def words(x):
        pairs = _unpack(load(x, 0), load(x, 1), size, 1)
        if depth == 2:
            return [_split_chunks(half, size) for half in pairs]
        others = _unpack(load(x, 2), load(x, 3), size, 1)
        return [v for a, b in zip(pairs, others, strict=True) for v in _unpack(a, b, size, 2)]

    def store(x, w) -> None:
        count = size // depth
        for index, vector in enumerate(words(x)):
            value = T.reinterpret(vector, dtype=f"{word_type(depth)}x{count}")
            build.buffer_store(
                w, value, [index * count * 4 // size, 0, T.ramp(T.int32(0), 1, count)]
            )

    @_script.prim_func(s_tir=True)
    def impl(
        X: T.Buffer(
            (span, 1, 1, size),
            "uint8",
            offset_factor=1,
            strides=[T.int32(), T.int32(), T.int32(), 1],
        ),
        W: T.Buffer((4, chunks, 4), word_type(depth), offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(X[0:span, 0, 0, 0:size])
            T.writes(W[0:4, 0:chunks, 0:4])
            store(X, W)

    TensorIntrin.register(name, desc, impl)
    return name


@functools.cache
def interleave_channels(channels: int, dtype: str) -> str:
    """The name of the intrinsic that interleaves 16 bytes each of so many rows, as NCHW becomes NHWC."""
    name = f"lowgemm_interleave_{channels}_channels_{dtype}"
    size = 16

    @_script.prim_func(s_tir=True)
    def desc(
        X: T.Buffer((channels, size), dtype, offset_factor=1, strides=[T.int32(), 1]),
        Y: T.Buffer((size, channels), dtype, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(X[0:channels, 0:size])
            T.writes(Y[0:size, 0:channels])
            for i, c in T.grid(size, channels):
                with T.sblock("update"):
                    vi, vc = T.axis.remap("SS", [i, c])
                    Y[vi, vc] = X[vc, vi]

    def store(x, y) -> None:
        rows = [x.vload([c, 0], dtype=f"{dtype}x{size}") for c in range(channels)]
        turn = [c * size + i for i in range(size) for c in range(channels)]
        for first in range(0, size * channels, size):
            at = [first // channels, T.ramp(T.int32(first % channels), 1, size)]
            build.buffer_store(y, tirx.Shuffle(rows, turn[first : first + size]), at)

    @_script.prim_func(s_tir=True)
    def impl(
        X: T.Buffer((channels, size), dtype, offset_factor=1, strides=[T.int32(), 1]),
        Y: T.Buffer((size, channels), dtype, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(X[0:channels, 0:size])
            T.writes(Y[0:size, 0:channels])
            store(X, Y)

    TensorIntrin.register(name, desc, impl)
    return name


@functools.cache
def narrow_block(dtype: str, chunks: int) -> str:
    """The name of the intrinsic that narrows four vectors of codes to one vector of `dtype`, in order."""
    name = f"lowgemm_narrow_{dtype}_{chunks}"
    lanes = chunks * 4
    size = 4 * lanes

    @_script.prim_func(s_tir=True)
    def desc(
        C: T.Buffer((4, chunks, 4), "int32", offset_factor=1),
        Y: T.Buffer((chunks, 4, 4), dtype, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4, 0:chunks, 0:4])
            T.writes(Y[0:chunks, 0:4, 0:4])
            for k, j, q in T.grid(chunks, 4, 4):
                with T.sblock("update"):
                    vk, vj, vq = T.axis.remap("SSS", [k, j, q])
                    Y[vk, vj, vq] = saturated(C[vj, vk, vq], dtype)

    def narrowed(c):
        return narrow([c.vload([j, 0, 0], dtype=f"int32x{lanes}") for j in range(4)], dtype)

    @_script.prim_func(s_tir=True)
    def impl(
        C: T.Buffer((4, chunks, 4), "int32", offset_factor=1),
        Y: T.Buffer((chunks, 4, 4), dtype, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4, 0:chunks, 0:4])
            T.writes(Y[0:chunks, 0:4, 0:4])
            Y[0, 0, T.ramp(T.int32(0), 1, size)] = narrowed(C)

    TensorIntrin.register(name, desc, impl)
    return name


def narrow(codes: list, dtype: str):
    """The function of `narrow_block` on vectors: what is no int16 is beyond all bytes, too, on the same side."""
    lanes = codes[0].ty.dtype.lanes
    to_words, to_bytes = _packs(dtype, lanes)
    words = [_pack(to_words, codes[i], codes[i + 1], f"int16x{lanes * 2}") for i in (0, 2)]
    return _pack(to_bytes, words[0], words[1], f"{dtype}x{lanes * 4}")


def interleave_words(vectors: list) -> list:
    """Two or four vectors of bytes (None: zeros) as four vectors of words, a byte of each or, of two, 16 bits of each.

    Vector j has their bytes `16 k + 4 j + q`. One at least is not None.
    """
    size = next(vector for vector in vectors if vector is not None).ty.dtype.lanes
    zero = T.broadcast(T.uint8(0), size)
    given = [zero if vector is None else vector for vector in vectors]
    halves = _unpack(given[0], given[1], size, 1)
    if len(given) == 2:
        words = [word for half in halves for word in _unpack(half, zero, size, 1)]
        return [T.reinterpret(word, dtype=f"int16x{size // 2}") for word in words]
    others = _unpack(given[2], given[3], size, 1)
    return [v for a, b in zip(halves, others, strict=True) for v in _unpack(a, b, size, 2)]


def gather_words(first, second) -> list:
    """The even and the odd 32-bit words of two vectors of bytes (vshufps): in each 16 bytes two words of each."""
    size = first.ty.dtype.lanes

    def half(odd: int):
        words = [
            side * size + chunk + 8 * pair + 4 * odd
            for chunk in range(0, size, 16)
            for side in (0, 1)
            for pair in (0, 1)
        ]
        return tirx.Shuffle([first, second], [word + byte for word in words for byte in range(4)])

    return [half(0), half(1)]


def scatter_words(even, odd) -> tuple:
    """Two vectors from what `gather_words` made of them, or what took its place."""
    return _unpack(even, odd, even.ty.dtype.lanes, 4)


def transpose_words(vector):
    """vpshufb: byte 4 j + q of each 16 goes to 4 q + j."""
    size = vector.ty.dtype.lanes
    quads = [(chunk, q, j) for chunk in range(0, size, 16) for q in range(4) for j in range(4)]
    return tirx.Shuffle([vector], [chunk + 4 * j + q for chunk, q, j in quads])


def _packs(dtype: str, lanes: int) -> tuple[str, str]:
    # Both read signed numbers: of unsigned words the second one would take the upper half for negative ones.
    kind = "us" if dtype == "uint8" else "ss"
    if lanes == 16:
        return "llvm.x86.avx512.packssdw.512", f"llvm.x86.avx512.pack{kind}wb.512"
    return "llvm.x86.avx2.packssdw", f"llvm.x86.avx2.pack{kind}wb"


def _pack(instruction: str, a, b, dtype: str):
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(instruction), a, b, dtype=dtype)


def _split_chunks(vector, size: int):
    """vpermq: first the lower 8 bytes of each 16, then the others."""
    starts = [*range(0, size, 16), *range(8, size, 16)]
    return tirx.Shuffle([vector], [start + byte for start in starts for byte in range(8)])


def _unpack(a, b, size: int, unit: int) -> tuple:
    """vpunpckl and vpunpckh of elements of `unit` bytes: alternately from `a` and `b`, within each 16 bytes."""

    def half(start):
        indices = [
            side * size + chunk + start + element + byte
            for chunk in range(0, size, 16)
            for element in range(0, 8, unit)
            for side in (0, 1)
            for byte in range(unit)
        ]
        return tirx.Shuffle([a, b], indices)

    return half(0), half(8)
