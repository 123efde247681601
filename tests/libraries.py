"""Libraries of kernels written in C: small, fast to make, and failing on demand, which TVM's kernels are not."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import lowgemm
from lowgemm.artifact import Buffer, Plan, Port, Step, Variant, build
from lowgemm.artifact.build import find_compiler

CSRC = Path(lowgemm.__file__).parent / "artifact" / "csrc"

# y = x + c, elementwise; the second form does it in tasks of the thread pool, the third fails.
_KERNELS = """
#include "lowgemm_internal.h"
extern void *__TVMBackendParallelLaunch;
void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);

typedef struct {{ float *x, *c, *y; int64_t n; }} job;

static int add(int id, lg_group *group, void *closure) {{
  job *j = closure;
  for (int64_t i = id; i < j->n; i += group->num_task) j->y[i] = j->x[i] + j->c[i];
  return 0;
}}

static job job_of(lg_any *args) {{
  lg_tensor *x = args[0].value.v_ptr, *c = args[1].value.v_ptr, *y = args[2].value.v_ptr;
  return (job){{x->data, c->data, y->data, x->shape[0] * x->shape[1]}};
}}

int __tvm_ffi_{prefix}_add(void *self, lg_any *args, int32_t count, lg_any *result) {{
  lg_group group = {{0, 1}};
  job j = job_of(args);
  return add(0, &group, &j);
}}

int __tvm_ffi_{prefix}_shared(void *self, lg_any *args, int32_t count, lg_any *result) {{
  job j = job_of(args);
  int (*launch)(lg_task, void *, int) = (int (*)(lg_task, void *, int))__TVMBackendParallelLaunch;
  return launch(add, &j, 0);
}}

int __tvm_ffi_{prefix}_fail(void *self, lg_any *args, int32_t count, lg_any *result) {{
  TVMFFIErrorSetRaisedFromCStr("ValueError", "out of luck");
  return -1;
}}
"""

SHAPE = (3, 50)
CONSTANT = np.arange(150, dtype=np.float32).reshape(SHAPE)


def compile_object(source: str) -> bytes:
    """The object file of C code that may include the runtime's headers."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "k.c").write_text(source)
        flags = ["-O1", "-std=gnu11", "-fPIC", "-c", f"-I{CSRC}", "k.c", "-o", "k.o"]
        subprocess.run([*find_compiler(), *flags], cwd=folder, check=True)
        return (Path(folder) / "k.o").read_bytes()


def variant(
    level: str = "avx2", features: Sequence[str] = (), kernels: Sequence[str] = ("add", "shared")
) -> Variant:
    """Adds CONSTANT to the input with the first kernel, then again to the result with the next one, and so on."""
    steps = []
    for number, kernel in enumerate(kernels):
        source = Buffer(SHAPE, "float32", "arena", 1024 * (number - 1)) if number else _PORT_IN
        last = number == len(kernels) - 1
        target = _PORT_OUT if last else Buffer(SHAPE, "float32", "arena", 1024 * number)
        args = (source, Buffer(SHAPE, "float32", "constant", 0), target)
        steps.append(Step(f"{level}_{kernel}", args, f"layer{number}", kernel, 150, SHAPE))
    return Variant(
        level=level,
        features=tuple(features),
        objects=(compile_object(_KERNELS.format(prefix=level)),),
        steps=tuple(steps),
        arena_bytes=1024 * len(kernels),
        constants=CONSTANT.tobytes(),
    )


def plan(*variants: Variant) -> Plan:
    """A model of one input "x" and one output "y", both float32 of SHAPE."""
    port_in, port_out = Port("x", SHAPE, "float32"), Port("y", SHAPE, "float32")
    return Plan("test", (port_in,), (port_out,), variants or (variant(),))


def make_library(path: Path, *variants: Variant) -> Path:
    """Build `plan(*variants)` at `path`."""
    build(plan(*variants), path, header_path=path.with_suffix(".h"))
    return path


_PORT_IN = Buffer(SHAPE, "float32", "input", 0)
_PORT_OUT = Buffer(SHAPE, "float32", "output", 0)
