"""The instructions of AMX on tile registers, as s_tir tensor intrinsics.

A tile is up to 16 rows of up to 64 bytes. Tiles live in buffers of scope "amx.tmm", which are memory only by name:
where in its buffer a tile begins says which register it is.

    zero     C[i, j] = 0                                                                  tilezero
    load     A[i, k] = memory[i, k], B[k, j, q] = memory[k, j, q]                         tileloadd
    dot      C[i, j] += sum_k A[i, k] * B[k / 4, j, k mod 4]                              tdpbusd, tdpbssd
    store    memory[i, j] = C[i, j]                                                       tilestored

Rows, and bytes of a row, are what the tile configuration in force says; here they are at their most. An instruction on
tiles of fewer rows touches no others.
"""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import functools
from dataclasses import dataclass

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from lowgemm.intrin import _script
from lowgemm.targets import TILE_BYTES, TILE_COLUMNS, TILE_ROWS

TILE_SCOPE = "amx.tmm"
# Which registers hold the sums, the left operand's tiles and the right one's: the first of each.
FIRST_SUMS, FIRST_LHS, FIRST_RHS = 0, 4, 6
# By the dtype of the left operand; the right one is int8.
_DOTS = {"uint8": "tdpbusd", "int8": "tdpbssd"}


@dataclass(frozen=True)
class Tiles:
    """The registered intrinsics of one product of tiles: their names."""

    zero: str
    load_lhs: str
    load_rhs: str
    dot: str
    store: str


@functools.cache
def tile_product(lhs: str, depth: int) -> Tiles:
    """C (16, 16) += A (16, depth) of dtype `lhs` times B (depth / 4, 16, 4) of int8."""
    prefix = f"lowgemm_tile_{lhs}_{depth}"
    return Tiles(
        _registered("lowgemm_tile_zero", _zero),
        _registered(f"{prefix}_lhs", _load_lhs, lhs, depth),
        _registered(f"lowgemm_tile_{depth}_rhs", _load_rhs, depth),
        _registered(f"{prefix}_dot", _dot, lhs, depth),
        _registered("lowgemm_tile_store", _store),
    )


@functools.cache
def _registered(name: str, make, *arguments) -> str:
    TensorIntrin.register(name, *make(*arguments))
    return name


def tile_instruction(name: str, *operands):
    """A call of `llvm.x86.<name>`; tile numbers are constants of uint8."""
    identity = T.llvm_lookup_intrinsic_id(f"llvm.x86.{name}")
    return T.call_llvm_intrin(identity, *operands, dtype="void")


def _number(tile, pitch, columns: int, first: int = FIRST_SUMS):
    """The register that the buffer `tile` is: the place of its block of 16 rows among those of the whole buffer."""
    row, column = tile.elem_offset // pitch // TILE_ROWS, tile.elem_offset % pitch // columns
    return T.Cast("uint8", row * (pitch // columns) + column + first)


def _zero():
    @_script.prim_func(s_tir=True)
    def desc(
        C: T.Buffer((TILE_ROWS, TILE_COLUMNS), "int32", offset_factor=1, scope=TILE_SCOPE),
    ) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:TILE_ROWS, 0:TILE_COLUMNS])
            for i, j in T.grid(TILE_ROWS, TILE_COLUMNS):
                with T.sblock("zero"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.int32(0)

    @_script.prim_func(s_tir=True)
    def impl(c: T.handle) -> None:
        pitch = T.int32()
        C = T.match_buffer(
            c,
            (TILE_ROWS, TILE_COLUMNS),
            "int32",
            offset_factor=1,
            scope=TILE_SCOPE,
            strides=[pitch, 1],
        )
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:TILE_ROWS, 0:TILE_COLUMNS])
            T.evaluate(tile_instruction("tilezero", _number(C, pitch, TILE_COLUMNS)))

    return desc, impl


def _load_lhs(dtype: str, depth: int):
    @_script.prim_func(s_tir=True)
    def desc(
        M: T.Buffer((TILE_ROWS, depth), dtype, offset_factor=1, strides=[T.int32(), 1]),
        A: T.Buffer((TILE_ROWS, depth), dtype, offset_factor=1, scope=TILE_SCOPE),
    ) -> None:
        with T.sblock("root"):
            T.reads(M[0:TILE_ROWS, 0:depth])
            T.writes(A[0:TILE_ROWS, 0:depth])
            for i, k in T.grid(TILE_ROWS, depth):
                with T.sblock("load"):
                    vi, vk = T.axis.remap("SS", [i, k])
                    A[vi, vk] = M[vi, vk]

    @_script.prim_func(s_tir=True)
    def impl(m: T.handle, a: T.handle) -> None:
        stride = T.int32()
        pitch = T.int32()
        M = T.match_buffer(m, (TILE_ROWS, depth), dtype, offset_factor=1, strides=[stride, 1])
        A = T.match_buffer(
            a, (TILE_ROWS, depth), dtype, offset_factor=1, scope=TILE_SCOPE, strides=[pitch, 1]
        )
        with T.sblock("root"):
            T.reads(M[0:TILE_ROWS, 0:depth])
            T.writes(A[0:TILE_ROWS, 0:depth])
            T.evaluate(
                tile_instruction(
                    "tileloadd64",
                    _number(A, pitch, depth, FIRST_LHS),
                    M.access_ptr("r"),
                    T.Cast("int64", stride),
                )
            )

    return desc, impl


def _load_rhs(depth: int):
    groups = depth // 4

    @_script.prim_func(s_tir=True)
    def desc(
        M: T.Buffer((groups, TILE_COLUMNS, 4), "int8", offset_factor=1),
        B: T.Buffer((groups, TILE_COLUMNS, 4), "int8", offset_factor=1, scope=TILE_SCOPE),
    ) -> None:
        with T.sblock("root"):
            T.reads(M[0:groups, 0:TILE_COLUMNS, 0:4])
            T.writes(B[0:groups, 0:TILE_COLUMNS, 0:4])
            for k, j, q in T.grid(groups, TILE_COLUMNS, 4):
                with T.sblock("load"):
                    vk, vj, vq = T.axis.remap("SSS", [k, j, q])
                    B[vk, vj, vq] = M[vk, vj, vq]

    @_script.prim_func(s_tir=True)
    def impl(
        M: T.Buffer((groups, TILE_COLUMNS, 4), "int8", offset_factor=1),
        B: T.Buffer((groups, TILE_COLUMNS, 4), "int8", offset_factor=1, scope=TILE_SCOPE),
    ) -> None:
        with T.sblock("root"):
            T.reads(M[0:groups, 0:TILE_COLUMNS, 0:4])
            T.writes(B[0:groups, 0:TILE_COLUMNS, 0:4])
            T.evaluate(
                tile_instruction(
                    "tileloadd64",
                    T.Cast("uint8", B.elem_offset // (depth * TILE_COLUMNS) + FIRST_RHS),
                    M.access_ptr("r"),
                    T.int64(TILE_BYTES),
                )
            )

    return desc, impl


def _dot(lhs: str, depth: int):
    groups = depth // 4

    @_script.prim_func(s_tir=True)
    def desc(
        A: T.Buffer((TILE_ROWS, depth), lhs, offset_factor=1, scope=TILE_SCOPE),
        B: T.Buffer((groups, TILE_COLUMNS, 4), "int8", offset_factor=1, scope=TILE_SCOPE),
        C: T.Buffer((TILE_ROWS, TILE_COLUMNS), "int32", offset_factor=1, scope=TILE_SCOPE),
    ) -> None:
        with T.sblock("root"):
            T.reads(
                C[0:TILE_ROWS, 0:TILE_COLUMNS],
                A[0:TILE_ROWS, 0:depth],
                B[0:groups, 0:TILE_COLUMNS, 0:4],
            )
            T.writes(C[0:TILE_ROWS, 0:TILE_COLUMNS])
            for i, j, k in T.grid(TILE_ROWS, TILE_COLUMNS, depth):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "int32") * T.cast(
                        B[vk // 4, vj, vk % 4], "int32"
                    )

    @_script.prim_func(s_tir=True)
    def impl(a: T.handle, b: T.handle, c: T.handle) -> None:
        a_pitch = T.int32()
        c_pitch = T.int32()
        A = T.match_buffer(
            a, (TILE_ROWS, depth), lhs, offset_factor=1, scope=TILE_SCOPE, strides=[a_pitch, 1]
        )
        B = T.match_buffer(b, (groups, TILE_COLUMNS, 4), "int8", offset_factor=1, scope=TILE_SCOPE)
        C = T.match_buffer(
            c,
            (TILE_ROWS, TILE_COLUMNS),
            "int32",
            offset_factor=1,
            scope=TILE_SCOPE,
            strides=[c_pitch, 1],
        )
        with T.sblock("root"):
            T.reads(
                C[0:TILE_ROWS, 0:TILE_COLUMNS],
                A[0:TILE_ROWS, 0:depth],
                B[0:groups, 0:TILE_COLUMNS, 0:4],
            )
            T.writes(C[0:TILE_ROWS, 0:TILE_COLUMNS])
            T.evaluate(
                tile_instruction(
                    _DOTS[lhs],
                    _number(C, c_pitch, TILE_COLUMNS),
                    _number(A, a_pitch, depth, FIRST_LHS),
                    T.Cast("uint8", B.elem_offset // (depth * TILE_COLUMNS) + FIRST_RHS),
                )
            )

    return desc, impl


def _store():
    @_script.prim_func(s_tir=True)
    def desc(
        C: T.Buffer((TILE_ROWS, TILE_COLUMNS), "int32", offset_factor=1, scope=TILE_SCOPE),
        M: T.Buffer(
            (TILE_ROWS, TILE_COLUMNS),
            "int32",
            offset_factor=1,
            scope="local",
            strides=[T.int32(), 1],
        ),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:TILE_ROWS, 0:TILE_COLUMNS])
            T.writes(M[0:TILE_ROWS, 0:TILE_COLUMNS])
            for i, j in T.grid(TILE_ROWS, TILE_COLUMNS):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    M[vi, vj] = C[vi, vj]

    @_script.prim_func(s_tir=True)
    def impl(c: T.handle, m: T.handle) -> None:
        pitch = T.int32()
        stride = T.int32()
        C = T.match_buffer(
            c,
            (TILE_ROWS, TILE_COLUMNS),
            "int32",
            offset_factor=1,
            scope=TILE_SCOPE,
            strides=[pitch, 1],
        )
        M = T.match_buffer(
            m,
            (TILE_ROWS, TILE_COLUMNS),
            "int32",
            offset_factor=1,
            scope="local",
            strides=[stride, 1],
        )
        with T.sblock("root"):
            T.reads(C[0:TILE_ROWS, 0:TILE_COLUMNS])
            T.writes(M[0:TILE_ROWS, 0:TILE_COLUMNS])
            T.evaluate(
                tile_instruction(
                    "tilestored64",
                    _number(C, pitch, TILE_COLUMNS),
                    M.access_ptr("w"),
                    T.Cast("int64", stride * 4),
                )
            )

    return desc, impl
