"""Products of float32 activations with packed weights of fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from lowgemm.ops._arrays import (
    OperandError,
    aligned,
    array,
    expect,
    integer,
    level,
    one_of,
    positive_scale,
)
from lowgemm.ops._library import Library, kernels
from lowgemm.ops._panels import PanelProduct
from lowgemm.packing_panels import FEW_ROWS, PanelLayout
from lowgemm.quant import to_bfloat16, to_float16
from lowgemm.targets import CpuTarget

_FLOATS = ("float32", "float16", "bfloat16")
# Kinds of codes, and the types and ranges that they are given in.
_CODES = {
    "int8": {"int8": (-128, 127), "uint8": (0, 255)},
    "int4": {"int8": (-8, 7), "uint8": (0, 15)},
}


class PackedFloatGemm:
    """The product of float32 matrices with one packed weight: what `pack_float_gemm` returns.

    Several threads may call it at a time, with any numbers of rows. What becomes of a row depends only on the row and
    on the weight, bit for bit, unless activations are rounded.
    """

    def __init__(
        self,
        product: PanelProduct,
        weights: str,
        depth: int,
        columns: int,
        target: CpuTarget,
        nbytes: int,
    ) -> None:
        self._product = product
        self.weights, self.depth, self.columns = weights, depth, columns
        self.target, self.nbytes = target, nbytes

    def __call__(self, a: Any, out: Any = None, *, beta: float = 0.0) -> np.ndarray:
        """fma(beta, out, a @ b + bias), or, where beta is 0, a @ b + bias; `pack_float_gemm` has the order of the sums.

        Args:
            a: float32 `(..., rows, depth)`. The elements of each row are adjacent; rows may be apart.
            out: where to write, float32 `(..., rows, columns)`, the elements of each row adjacent; else a new array.
            beta: what `out` counts for; if 0, it is not read.

        Returns:
            float32 `(..., rows, columns)`.

        Raises:
            OperandError: naming the argument, what was expected and what came.
        """
        return self._product(a, out, beta)

    def bind(self, a: np.ndarray, out: np.ndarray, *, beta: float = 0.0) -> Callable[[], None]:
        """A function without arguments that multiplies what these arrays hold when it is called.

        It costs less than a call with arrays. It is for one thread at a time. Arguments and errors are those of a call.
        """
        return self._product.bind(a, out, beta)


def pack_float_gemm(
    b: Any,
    *,
    weights: str | None = None,
    scale: Any = None,
    zero_point: Any = None,
    group_size: int | None = None,
    bias: Any = None,
    transposed: bool = False,
    activations: str = "float32",
    target: str | CpuTarget = "host",
) -> PackedFloatGemm:
    """Pack the right matrix of products a @ b whose left one, and result, are float32.

    Floats: sums of fma(a, b, sum), the depth rising. Codes: of every group of the depth such a sum with
    code - zero_point, then total = fma(sum, scale, total), the groups rising; that of int4 is corrected by the sum of
    the group's activations. `topi._float_gemm` says it in full. With float16 weights it is FBGEMM's
    `cblas_gemm_compute`. The kernel for 1 to 6 rows and the one for more are each compiled when they are first called,
    for weights of any size.

    Args:
        b: the weight `(depth, columns)`: float32, float16 or bfloat16 (of ml_dtypes), or codes.
        weights: what they are kept as: float32, float16, bfloat16, int8 or int4; by default what they come as. float32
            may be kept as float16, rounded to nearest and clipped to +-65504 as FBGEMM does, or as bfloat16. int4 comes
            as int8 in [-8, 7] or as uint8 in [0, 15], int8 as int8 or uint8.
        scale: of codes: one, one for each column, or `(groups, columns)`.
        zero_point: of codes: integers in the codes' range, one or as many as scales.
        group_size: how many neighbours of the depth share scales; the last group may be smaller. By default all. Of
            int4 a multiple of 8.
        bias: float32 `(columns,)`.
        transposed: `b` comes as `(columns, depth)`; scales and zero points remain as above.
        activations: float32; or bfloat16, beside weights of the same: those of each call are rounded, to nearest, ties
            to even. Where the target has AVX-512 BF16, its instruction then sums pairs of products, and takes numbers
            below 2^-126 for zero; elsewhere the sums are those above.
        target: "host", or a level's name.

    Returns:
        What multiplies; the left matrix of a call is float32 `(..., rows, depth)`.

    Raises:
        OperandError: an argument does not fit.
        TargetError: no such level, or this CPU lacks it.
    """
    b = array(b, "b")
    kind = b.dtype.name if weights is None else weights
    kind = "int8" if kind == "uint8" and weights is None else kind
    one_of("weights", kind, (*_FLOATS, *_CODES))
    if b.ndim != 2 or not b.size:
        raise OperandError(f"b: expected two axes of at least one element, got shape {b.shape}")
    one_of("activations", activations, ("float32", "bfloat16"))
    if activations == "bfloat16" and kind != "bfloat16":
        raise OperandError(f"activations: bfloat16 needs bfloat16 weights, got {kind}")
    depth, columns = b.shape[::-1] if transposed else b.shape
    chosen = level(target)
    pairs = activations == "bfloat16" and chosen.has("avx512_bf16")
    size = depth
    if kind in _CODES and group_size is not None:
        size = min(integer(group_size, "group_size", 1), depth)
    group = size if size < depth else 0
    layout = PanelLayout.of("bfloat16x2" if pairs else kind, columns, chosen, group)
    held: list[np.ndarray | int] = []
    zeros = None
    if kind in _CODES:
        steps = layout.format.steps
        if size % steps and size < depth:
            raise OperandError(f"group_size: expected a multiple of {steps}, got {size}")
        if scale is None:
            raise OperandError(f"scale: {kind} weights need one")
        shape = (-(-depth // size), columns)
        codes, zeros = _codes(b, kind, zero_point, shape)
        scales = _spread(positive_scale(scale, "scale"), "scale", shape)
        held.append(aligned(layout.pad_columns(scales)))
        if zeros is not None:
            held.append(aligned(layout.pad_columns(layout.hold_zeros(zeros))))
        held.append(size)
    else:
        for name, value in (
            ("scale", scale),
            ("zero_point", zero_point),
            ("group_size", group_size),
        ):
            if value is not None:
                raise OperandError(f"{name}: only for weights int8 and int4, got {kind}")
        codes = _floats(b, kind)
    if bias is not None:
        expect(array(bias, "bias"), "bias", "float32", (columns,))
        added = np.asarray(array(bias, "bias"))
    else:
        added = np.zeros(columns, np.float32)
    packed = aligned(layout.pack(codes.T if transposed else codes))
    held = [packed, *held, aligned(layout.pad_columns(added))]
    options = {"zero": zeros is not None, "rounded": activations == "bfloat16"}

    def library(few: bool) -> Library:
        def make():
            from lowgemm import schedules, topi

            return {"main": schedules.float_gemm(topi.FloatGemmForm(layout, **options), few)}

        return kernels("float_gemm", {**asdict(layout), "few": few, **options}, chosen, make)

    dtypes = ("float32", "float32", float)
    product = PanelProduct(library, FEW_ROWS, True, held, dtypes, depth, columns)
    nbytes = sum(each.nbytes for each in held if isinstance(each, np.ndarray))
    return PackedFloatGemm(product, kind, depth, columns, chosen, nbytes)


def _floats(b: np.ndarray, kind: str) -> np.ndarray:
    """Float weights as what the layout packs: bfloat16 as its bits."""
    given = b.dtype.name
    if given not in (kind, "float32"):
        expect(b, "b", (kind, "float32") if kind != "float32" else kind)
    if kind == "bfloat16":
        return b.view(np.uint16) if given == kind else to_bfloat16(b)
    return to_float16(b, clip=True) if given != kind else b


def _codes(
    b: np.ndarray, kind: str, zero_point: Any, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes as they are kept, and zero points of the codes as int8 or int4: None if they are all 0."""
    expect(b, "b", tuple(_CODES[kind]))
    low, high = _CODES[kind][b.dtype.name]
    if kind == "int4" and (b.min() < low or b.max() > high):
        raise OperandError(
            f"b: expected {b.dtype.name} from {low} to {high} for int4, got {b.min()} to {b.max()}"
        )
    zeros = np.asarray(0 if zero_point is None else zero_point)
    if zeros.dtype.kind not in "iu":
        raise OperandError(f"zero_point: expected integers, got {zeros.dtype.name}")
    if not zeros.size or zeros.min() < low or zeros.max() > high:
        raise OperandError(f"zero_point: expected {low} to {high}, got {zeros.tolist()}")
    # int8 is kept as such, int4 plus 8.
    offset = -low if kind == "int4" else (-128 if low == 0 else 0)
    kept = (b.astype(np.int16) + offset).astype(np.int8)
    middle = 0 if low else (high + 1) // 2
    moved = _spread(zeros.astype(np.float32) - middle, "zero_point", shape)
    return kept, moved if moved.any() else None


def _spread(values: np.ndarray, name: str, shape: tuple[int, int]) -> np.ndarray:
    """`values`, one, one for each column or as many as `shape` says, as `shape`."""
    groups, columns = shape
    if values.size == 1:
        return np.full(shape, values.reshape(()), np.float32)
    if values.shape in ((columns,), shape):
        return np.broadcast_to(values, shape)
    raise OperandError(
        f"{name}: expected one, ({columns},) or ({groups}, {columns}), got shape {values.shape}"
    )
