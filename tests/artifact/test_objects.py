"""What kernels are compiled to: what parallel loops tell the thread pool, and where the stack begins."""

import ctypes
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T

from lowgemm import codegen, targets
from lowgemm.artifact.objects import emit_object
from lowgemm.ops import _library
from lowgemm.ops._call import Call

_LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_ANNOUNCE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)


@T.prim_func(s_tir=True)
def two_loops(a: T.handle, b: T.handle):
    n = T.int64()
    first = T.match_buffer(a, (10,), "int32")
    second = T.match_buffer(b, (n,), "int32")
    for i in T.parallel(10):
        with T.sblock("first"):
            v = T.axis.spatial(10, i)
            first[v] = v
    for i in T.parallel(n):
        with T.sblock("second"):
            v = T.axis.spatial(n, i)
            second[v] = 1


@pytest.mark.isa("avx2")
def test_parallel_loops_are_announced() -> None:
    library = _library.kernels("two_loops", {}, targets.host(), lambda: {"main": two_loops})
    told: list[tuple[str, int]] = []

    def announce(iterations: int) -> int:
        told.append(("announce", iterations))
        return 0

    def launch(_task: Any, _closure: Any, tasks: int) -> int:
        told.append(("launch", tasks))
        return 0

    hooks = (ctypes.c_void_p * 5)()
    kept = {0: _LAUNCH(launch), 4: _ANNOUNCE(announce)}
    for place, function in kept.items():
        hooks[place] = ctypes.cast(function, ctypes.c_void_p)
    library._handle.lgops_hook(ctypes.byref(hooks))
    arrays = [np.zeros(10, np.int32), np.zeros(300, np.int32)]
    Call(library, "main", arrays, work=10**9)()
    assert told == [("announce", 10), ("launch", 0), ("announce", 300), ("launch", 0)]


# and $-64, %rsp
_ALIGN = bytes.fromhex("4883e4c0")


@T.prim_func(s_tir=True)
def tiles(a: T.handle, b: T.handle):
    first = T.match_buffer(a, (4, 64), "int32")
    second = T.match_buffer(b, (4, 64), "int32")
    for i in T.parallel(4):
        with T.sblock("row"):
            row = T.axis.spatial(4, i)
            tile = T.sblock_alloc_buffer((4, 16), "int32")
            for j in range(4):
                for k in T.vectorized(16):
                    tile[j, k] = first[row, j * 16 + k] + 1
            for j in range(4):
                for k in T.vectorized(16):
                    second[row, j * 16 + k] = tile[3 - j, k]


@pytest.mark.isa("avx2")
@pytest.mark.parametrize(("kernel", "aligned"), [(tiles, True), (two_loops, False)])
def test_tiles_are_spilled_to_an_aligned_stack(kernel: tvm.tirx.PrimFunc, aligned: bool) -> None:
    target = codegen.llvm_target(targets.host())
    func = kernel.with_attr("global_symbol", "main")
    code = emit_object(tvm.IRModule({"main": func}), target)
    assert (_ALIGN in code) == aligned
