"""Operators that write a part of their output: as loops, because tensor expressions cannot."""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import tvm
from tvm.script import tirx as T

from lowgemm.topi import _script


def copy_into(rows: int, run: int, out_run: int, offset: int, dtype: str) -> tvm.tirx.PrimFunc:
    """dst[r, offset + i] = src[r, i]: one operand of a concatenation. src `(rows, run)`, dst `(rows, out_run)`."""

    @_script.prim_func(s_tir=True)
    def func(src: T.Buffer((rows, run), dtype), dst: T.Buffer((rows, out_run), dtype)) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for r in T.serial(rows):
            for i in T.serial(run):
                with T.sblock("dst"):
                    vr, vi = T.axis.remap("SS", [r, i])
                    dst[vr, offset + vi] = src[vr, vi]

    return func
