"""Machine code of TVM functions, as an ELF object."""

import re
import tempfile
from pathlib import Path

import tvm
from tvm_ffi.serialization import from_json_graph_str

# Loops that a schedule marks are split where a condition on their variable changes, so that the middle is free of it.
_PASS_CONFIG = {
    "s_tir.LoopPartition": {"partition_const_loop": True, "no_unroll_loop_with_extent_one": True}
}

# An attribute of functions whose temporary buffers have the size that they need. Where all functions of a module have
# it, TVM does not look for what of the buffers is used, which takes seconds where indices are not affine.
EXACT_BUFFERS = "lowgemm.exact_buffers"

_ALIGNMENT = re.compile(r'"data_alignment": *\d+')


def compile_kernels(
    module: tvm.IRModule, target: tvm.target.Target, trusting: bool = False
) -> tvm.runtime.Executable:
    """Compile every function of `module` with the passes that schedules count on.

    `trusting` leaves out what each function checks of its arguments' types and shapes, for callers that have: it is a
    quarter of the code of small functions.
    """
    exact = all(EXACT_BUFFERS in (func.attrs or {}) for func in module.functions.values())
    disabled = ["s_tir.CompactBufferAllocation"] if exact else []
    config = {**_PASS_CONFIG, "tirx.disable_assert": trusting}
    with tvm.transform.PassContext(opt_level=3, config=config, disabled_pass=disabled):
        return tvm.compile(module, target=target)


def emit_object(module: tvm.IRModule, target: tvm.target.Target, trusting: bool = False) -> bytes:
    """Compile every function of `module`; `f` is exported as the C symbol `__tvm_ffi_f`, position independent.

    `trusting` is that of `compile_kernels`.
    """
    executable = compile_kernels(module, target, trusting)
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
