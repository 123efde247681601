"""Functions over contiguous arrays of any size, described to the native side once for each thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lowgemm.ops._arrays import OperandError, apart, array, contiguous, expect, level
from lowgemm.ops._call import Call
from lowgemm.ops._library import kernels
from lowgemm.targets import CpuTarget

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


_NAMES = {
    np.dtype(name): name for name in ("float32", "float16", "int32", "int64", "uint8", "int8")
}
_NAMES[np.dtype(np.uint16)] = "bfloat16"


class Prepared:
    """A compiled function: call it with contiguous arrays of any shapes, and numbers, always of the same kinds."""

    def __init__(
        self,
        op: str,
        params: Mapping[str, Any],
        target: CpuTarget,
        make: Callable[[], PrimFunc],
    ) -> None:
        self._library = kernels(op, params, target, lambda: {"main": make()})
        self._local = threading.local()
        self.target = target

    def __call__(self, work: int, *args: np.ndarray | int | float) -> None:
        """Run on `args`, as much work as `work` multiply-accumulates are."""
        state: tuple[Call, list] | None = getattr(self._local, "state", None)
        if state is None:
            call = Call(self._library, "main", args, work=work)
            call.release()
            shapes = [value.shape if isinstance(value, np.ndarray) else None for value in args]
            self._local.state = (call, shapes)
        else:
            call, shapes = state
            for index, value in enumerate(args):
                if isinstance(value, np.ndarray):
                    call.rebind(index, value)
                    if value.shape != shapes[index]:
                        call.reshape(index, value.shape)
                        shapes[index] = value.shape
                else:
                    call.set_number(index, value)
            call.set_rows(0, work)
        call()


def target_key(target: str | CpuTarget) -> tuple[str | CpuTarget, str | None]:
    """What decides the target that a name means, as an argument that can be kept: for `resolve`."""
    return target, os.environ.get("LOWGEMM_ISA")


def resolve(key: tuple[str | CpuTarget, str | None]) -> CpuTarget:
    """The target of a `target_key`.

    Raises:
        TargetError: there is no such level, or this CPU lacks what it needs.
    """
    return level(key[0])


def operand(value: Any, name: str, dtypes: tuple[np.dtype, ...], wide: str = "") -> np.ndarray:
    """`value` as a contiguous array of one of `dtypes`, or of ml_dtypes' type `wide`, and any size.

    Raises:
        OperandError: it is not one.
    """
    if type(value) is np.ndarray and value.dtype in dtypes:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value
    found = array(value, name, np.inf)
    if found.dtype not in dtypes and not (wide and found.dtype.name == wide):
        expect(found, name, [each.name for each in dtypes] + [wide] * bool(wide))
    return contiguous(found, name)


def result(out: Any, shape: tuple[int, ...], dtype: np.dtype, *inputs: np.ndarray) -> np.ndarray:
    """`out`, or a new array if it is None: contiguous, of `shape` and `dtype`, apart from `inputs`.

    Raises:
        OperandError: `out` is of another shape, dtype or layout, cannot be written to, or shares memory with an input.
    """
    if out is None:
        return np.empty(shape, dtype)
    found = array(out, "out", np.inf)
    if found.dtype != dtype or found.shape != shape:
        expect(found, "out", dtype.name, shape)
    contiguous(found, "out")
    if not found.flags.writeable:
        raise OperandError("out: expected an array that can be written to")
    apart(found, *inputs)
    return found


def name_of(dtype: np.dtype) -> str:
    """`dtype.name`, found faster; uint16 stands for the bits of bfloat16."""
    return _NAMES.get(dtype) or dtype.name


def bits_of(value: np.ndarray) -> np.ndarray:
    """`value` as kernels take it: bfloat16, of no kind that numpy knows, as uint16, everything else as it is."""
    return value.view(np.uint16) if value.dtype.kind == "V" else value
