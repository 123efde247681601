"""Products of 64-bit integers with packed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lowgemm.ops._arrays import OperandError, aligned, array, expect, level
from lowgemm.ops._library import Library, kernels
from lowgemm.ops._panels import PanelProduct
from lowgemm.packing_panels import PanelLayout
from lowgemm.targets import CpuTarget


class PackedGemmI64:
    """The product of int64 matrices with one packed weight: what `pack_gemm_i64` returns.

    Several threads may call it at a time, with any numbers of rows.
    """

    def __init__(self, product: PanelProduct, depth: int, columns: int, target: CpuTarget) -> None:
        self._product = product
        self.depth, self.columns, self.target = depth, columns, target

    def __call__(self, a: Any, out: Any = None, *, accumulate: bool = False) -> np.ndarray:
        """a @ b modulo 2^64, as `pack_gemm_i64` says.

        Args:
            a: int64 `(..., rows, depth)`, of any strides.
            out: where to write, int64 `(..., rows, columns)`, the elements of each row adjacent; else a new array.
            accumulate: add to what is in `out`.

        Returns:
            int64 `(..., rows, columns)`.

        Raises:
            OperandError: naming the argument, what was expected and what came.
        """
        return self._product(a, out, int(accumulate))

    def bind(
        self, a: np.ndarray, out: np.ndarray, *, accumulate: bool = False
    ) -> Callable[[], None]:
        """A function without arguments that multiplies what these arrays hold when it is called.

        It costs less than a call with arrays. It is for one thread at a time. Arguments and errors are those of a call.
        """
        return self._product.bind(a, out, int(accumulate))


def pack_gemm_i64(
    b: Any, *, transposed: bool = False, target: str | CpuTarget = "host"
) -> PackedGemmI64:
    """Pack the right matrix of products a @ b of 64-bit integers, which wrap: FBGEMM's `cblas_gemm_i64_i64acc`.

    The kernel is compiled on the first call, for weights of any size.

    Args:
        b: int64 `(depth, columns)`.
        transposed: it comes as `(columns, depth)`.
        target: "host", or a level's name.

    Returns:
        What multiplies; the left matrix of a call is int64 `(..., rows, depth)`.

    Raises:
        OperandError: an argument does not fit.
        TargetError: no such level, or this CPU lacks it.
    """
    b = array(b, "b")
    expect(b, "b", "int64")
    if b.ndim != 2 or not b.size:
        raise OperandError(f"b: expected two axes of at least one element, got shape {b.shape}")
    weight = b.T if transposed else b
    depth, columns = weight.shape
    chosen = level(target)
    layout = PanelLayout.of("int64", columns, chosen)

    def library(few: bool) -> Library:
        del few

        def make():
            from lowgemm import schedules

            return {"main": schedules.int64_gemm(layout, chosen)}

        params = {"lanes": layout.lanes, "vectors": layout.vectors}
        return kernels("gemm_i64", params, chosen, make)

    held = [aligned(layout.pack(weight))]
    product = PanelProduct(library, 0, False, held, ("int64", "int64", int), depth, columns)
    return PackedGemmI64(product, depth, columns, chosen)
