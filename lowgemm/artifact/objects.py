"""Machine code of TVM functions, as an ELF object."""

import tempfile
from pathlib import Path

import tvm


def emit_object(module: tvm.IRModule, target: tvm.target.Target) -> bytes:
    """Compile every function of `module`; `f` is exported as the C symbol `__tvm_ffi_f`, position independent."""
    executable = tvm.compile(module, target=target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        executable.mod.write_to_file(str(path), "o")
        return path.read_bytes()
