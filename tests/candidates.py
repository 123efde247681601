"""Candidates as the tuner measures them, of a kernel in C that can be made to fail in any way."""

from pathlib import Path

import numpy as np

from lowgemm.artifact import Buffer, Plan, Port, Step, Variant, build

from libraries import compile_object

_SHAPE = (4096,)

# y = x + 1 on bytes, and what BODY does before.
_KERNEL = """
#include <stdlib.h>
#include <string.h>
#include "lowgemm_internal.h"
int __tvm_ffi_k(void *self, lg_any *args, int32_t count, lg_any *result) {
  lg_tensor *x = args[0].value.v_ptr, *y = args[1].value.v_ptr;
  unsigned char *from = x->data, *to = y->data;
  BODY
  for (int i = 0; i < 4096; i++) to[i] = from[i] + 1;
  return 0;
}
"""


def make_candidate(path: Path, body: str = "") -> Path:
    """A library of one kernel that does `body` (statements in C) first."""
    ports = [Port(name, _SHAPE, "uint8") for name in "xy"]
    args = (Buffer(_SHAPE, "uint8", "input", 0), Buffer(_SHAPE, "uint8", "output", 0))
    step = Step("k", args, "task", "kernel", 4096, _SHAPE)
    code = compile_object(_KERNEL.replace("BODY", body))
    variant = Variant("avx2", (), (code,), (step,), 64, b"\0" * 64)
    build(Plan("task", (ports[0],), (ports[1],), (variant,)), path)
    return path


def make_data(path: Path) -> Path:
    """The file of inputs and expected outputs that goes with `make_candidate`."""
    x = np.arange(4096).astype(np.uint8)
    np.savez(path, in_x=x, expected=x + np.uint8(1))
    return path
