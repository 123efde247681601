"""Machine code of TVM functions, as an ELF object."""

import re
import tempfile
from math import prod
from pathlib import Path

import tvm
from tvm import tirx
from tvm_ffi.serialization import from_json_graph_str

from lowgemm.statements import rewritten, with_loop_body

# Loops that a schedule marks are split where a condition on their variable changes, so that the middle is free of it.
_PASS_CONFIG = {
    "s_tir.LoopPartition": {"partition_const_loop": True, "no_unroll_loop_with_extent_one": True}
}

# An attribute of functions whose temporary buffers have the size that they need. Where all functions of a module have
# it, TVM does not look for what of the buffers is used, which takes seconds where indices are not affine.
EXACT_BUFFERS = "lowgemm.exact_buffers"

# The pass pipelines of functions, by themselves and linked with the thread pool.
_PLAIN, _POOLED = "lowgemm", "lowgemm_pooled"

# TVM's annotation of buffers that its passes leave as they are.
_KEEP = "disable_lower_builtin"
# That of buffers that are written to even if nothing reads them.
_VOLATILE = "tirx.volatile"
# The bytes that all registers hold.
_REGISTERS = 32 * 64
# The elements of 32 bits that a line of a cache holds.
_LINE = 16

_ALIGNMENT = re.compile(r'"data_alignment": *\d+')


def compile_kernels(
    module: tvm.IRModule, target: tvm.target.Target, trusting: bool = False, pooled: bool = False
) -> tvm.runtime.Executable:
    """Compile every function of `module` with the passes that schedules count on.

    `trusting` leaves out what each function checks of its arguments' types and shapes, for callers that have: it is a
    quarter of the code of small functions. `pooled`: parallel loops tell how many iterations they have, by the pool's
    `lg_announce`, with which the functions must be linked.
    """
    exact = all(EXACT_BUFFERS in (func.attrs or {}) for func in module.functions.values())
    disabled = ["s_tir.CompactBufferAllocation"] if exact else []
    config = {**_PASS_CONFIG, "tirx.disable_assert": trusting}
    with tvm.transform.PassContext(opt_level=3, config=config, disabled_pass=disabled):
        return tvm.compile(module, target=target, tir_pipeline=_POOLED if pooled else _PLAIN)


def _pipeline(*passes):
    """TVM's passes, and `passes` before what makes calls of the runtime of loops and of buffers."""

    def make():
        lowering, *finalizing = tirx.get_tir_pipeline("default")
        return tvm.ir.transform.Sequential([lowering, *passes]), *finalizing

    return make


@tirx.transform.prim_func_pass(opt_level=0)
def _announce_parallel_loops(func: tirx.PrimFunc, _module, _context) -> tirx.PrimFunc:
    """parallel for i in n  ->  announce(n); parallel for i in n"""

    def announced(stmt: tirx.Stmt) -> tirx.Stmt:
        if not isinstance(stmt, tirx.For) or stmt.kind != tirx.ForKind.PARALLEL:
            return stmt
        call = tirx.call_extern("int32", "lg_announce", stmt.extent.astype("int64"))
        return tirx.SeqStmt([tirx.Evaluate(call), stmt])

    return func.with_body(rewritten(func.body, announced))


@tirx.transform.prim_func_pass(opt_level=0)
def _keep_registers(func: tirx.PrimFunc, _module, _context) -> tirx.PrimFunc:
    """Small buffers are variables, which LLVM keeps in registers.

    TVM does that up to 1 KB, and takes memory of the runtime for larger ones; 32 registers of 64 bytes are 2 KB. In
    scope "local" sums are wanted in memory (`schedules._depthwise`).
    """

    tiles = []

    def kept(stmt: tirx.Stmt) -> tirx.Stmt:
        if not isinstance(stmt, tirx.AllocBuffer) or not _fits_registers(stmt.buffer):
            return stmt
        tiles.append(stmt.buffer)
        return tirx.AllocBuffer(stmt.buffer, {**stmt.annotations, **_mark(_KEEP)})

    body = rewritten(func.body, kept)
    return func.with_body(_align_spills(body) if tiles else body)


def _mark(name: str) -> dict[str, tirx.IntImm]:
    return {name: tirx.IntImm("bool", True)}


def _align_spills(body: tirx.Stmt) -> tirx.Stmt:
    """`body` with a stack that begins at a multiple of 64 bytes, as vectors do that LLVM spills.

    LLVM decides before it gives out registers whether a stack is aligned, by the variables in it. Vectors that it
    spills afterwards come too late: by where the stack of a process happens to lie, each is in two lines of a cache,
    and a kernel takes up to 1.35 times as long. A line that is written once, which nothing reads, is such a variable.
    """

    def aligned(stmt: tirx.Stmt) -> tirx.Stmt:
        line = tirx.decl_buffer((1,), f"int32x{_LINE}", "line")
        written = tirx.BufferStore(line, tirx.Broadcast(tirx.const(0, "int32"), _LINE), [0])
        return tirx.SeqStmt(
            [tirx.AllocBuffer(line, {**_mark(_KEEP), **_mark(_VOLATILE)}), written, stmt]
        )

    def parallel(stmt: tirx.Stmt) -> tirx.Stmt:  # becomes a function of its own
        if not isinstance(stmt, tirx.For) or stmt.kind != tirx.ForKind.PARALLEL:
            return stmt
        return with_loop_body(stmt, aligned(stmt.body))

    return aligned(rewritten(body, parallel))


def _fits_registers(buffer: tirx.Buffer) -> bool:
    if buffer.scope() != "global" or not all(isinstance(n, tirx.IntImm) for n in buffer.shape):
        return False
    kind = buffer.dtype
    elements = prod(int(extent) for extent in buffer.shape)
    return elements * kind.bits // 8 * kind.lanes <= _REGISTERS


tirx.register_tir_pipeline(_PLAIN, _pipeline(_keep_registers))
tirx.register_tir_pipeline(_POOLED, _pipeline(_keep_registers, _announce_parallel_loops))


def emit_object(module: tvm.IRModule, target: tvm.target.Target, trusting: bool = False) -> bytes:
    """Compile every function of `module`; `f` is exported as the C symbol `__tvm_ffi_f`, position independent.

    It is linked with the thread pool, artifact/csrc/threads.c.

    `trusting` is that of `compile_kernels`.
    """
    executable = compile_kernels(module, target, trusting, pooled=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        executable.mod.write_to_file(str(path), "o")
        return path.read_bytes()


def unaligned(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`func` with buffers that may begin at any element, as a user's array does; TVM expects 64 bytes.

    Vectors are then loaded and stored by instructions that take any address, which cost nothing where it happens to be
    a multiple of the vector. All buffers, because the operands of intrinsics are parts of others, with their alignment.
    """
    # As text, and without tvm.ir.load_json, which first looks for nodes of older versions: three times as fast.
    text = _ALIGNMENT.sub('"data_alignment":1', tvm.ir.save_json(func))
    return from_json_graph_str(text)
