"""Machine code of TVM functions, as an ELF object."""

import tempfile
from pathlib import Path

import tvm

# Loops that a schedule marks are split where a condition on their variable changes, so that the middle is free of it.
_PASS_CONFIG = {
    "s_tir.LoopPartition": {"partition_const_loop": True, "no_unroll_loop_with_extent_one": True}
}


def compile_kernels(module: tvm.IRModule, target: tvm.target.Target) -> tvm.runtime.Executable:
    """Compile every function of `module` with the passes that schedules count on."""
    with tvm.transform.PassContext(opt_level=3, config=_PASS_CONFIG):
        return tvm.compile(module, target=target)


def emit_object(module: tvm.IRModule, target: tvm.target.Target) -> bytes:
    """Compile every function of `module`; `f` is exported as the C symbol `__tvm_ffi_f`, position independent."""
    executable = compile_kernels(module, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        executable.mod.write_to_file(str(path), "o")
        return path.read_bytes()
