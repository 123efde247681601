"""The product of 64-bit integers with a packed weight, modulo 2^64.

    C[i, j] = sum_k A[i, k] * W[k, j]                 C[i, j] + sum_k A[i, k] * W[k, j] if accumulating

FBGEMM's `cblas_gemm_i64_i64acc`.
"""

from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from lowgemm.packing_panels import PanelLayout


@dataclass
class Int64GemmArguments:
    """The arguments of the function that is being built, in order; sizes and integers have 64 bits.

    a int64 `(m, k)`, of any strides; weight int64 `(panels, k, width)`, `PanelLayout.pack`; tasks, the least number of
    parallel tasks to cut the work into; accumulate, 0 or 1; c int64 `(m, n)`, adjacent within a row.
    """

    a: tvm.tirx.Buffer
    weight: tvm.tirx.Buffer
    tasks: tvm.tirx.Var
    accumulate: tvm.tirx.Var
    c: tvm.tirx.Buffer

    @staticmethod
    def declare(layout: PanelLayout) -> "Int64GemmArguments":
        """Add the arguments to the function that is open in TVM's builder."""
        m, k, n, panels = (T.int64() for _ in range(4))
        width, one = (tirx.const(v, "int64") for v in (layout.width, 1))

        def buffer(name: str, shape, strides=None):
            return T.arg(name, T.buffer(shape, "int64", strides=strides, offset_factor=1))

        return Int64GemmArguments(
            a=buffer("a", (m, k), [T.int64(), T.int64()]),
            weight=buffer("weight", (panels, k, width)),
            tasks=T.arg("tasks", T.int64()),
            accumulate=T.arg("accumulate", T.int64()),
            c=buffer("c", (m, n), [T.int64(), one]),
        )
