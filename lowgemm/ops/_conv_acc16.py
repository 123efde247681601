"""Convolutions in saturating 16-bit accumulators: products whose left rows are windows, gathered as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from lowgemm.ops._acc16 import Acc16Variant, acc16_parts
from lowgemm.ops._arrays import array, expect
from lowgemm.ops._call import Call
from lowgemm.ops._conv import PackedConv, filters_of
from lowgemm.ops._conv_plan import Calls, Filters, Place, per_channel
from lowgemm.ops._output import Output
from lowgemm.ops._prepared import bits_of
from lowgemm.ops._product import ProductOptions, ProductPart, checked_options
from lowgemm.packing import Axis
from lowgemm.targets import CpuTarget
from lowgemm.tiling import acc16_packing


class PackedConvAcc16(PackedConv):
    """The convolution with one packed weight in 16-bit accumulators: what `pack_conv_acc16` returns.

    It is called, and bound, as `PackedConv` is. One kernel serves inputs of all sizes.
    """

    def __init__(self, filters: Filters, output: Output, outliers: bool) -> None:
        super().__init__(filters, output)
        self._wanted = outliers
        matrices = _matrices(filters)
        zeros = filters.zeros.reshape(filters.groups, -1)
        depth, columns = matrices[0].shape
        self._options = checked_options(
            depth=depth,
            columns=columns,
            in_dtype="uint8",
            quantize=None,
            row_zero="",
            weight_zero=bool(zeros.any()),
            batched=False,
            packing=acc16_packing(depth, columns, filters.target),
            output=output,
            target=filters.target,
        )
        self._parts, self._outliers = acc16_parts(
            self._options, matrices, zeros, filters.x_zero_point, outliers
        )

    def with_output(self, output: Output) -> PackedConvAcc16:
        """The same weight with another output stage.

        Args:
            output: in the place of the first one.

        Raises:
            OperandError: it does not fit the convolution, as in `pack_conv_acc16`.
        """
        return PackedConvAcc16(self._filters, output, self._wanted)

    @cached_property
    def _variant(self) -> Acc16Variant:
        taps = tuple(axis.kernel for axis in _three(self._filters.axes))
        strided = self._filters.groups > 1
        return Acc16Variant(self._options, self._outliers, False, strided, taps)

    def _planned(self, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Calls:
        return _Plan(self._filters, self._options, self._parts, self._variant, shape, out_shape)


class _Plan(Calls):
    """The calls for one shape of the input: one for each group."""

    def __init__(
        self,
        filters: Filters,
        options: ProductOptions,
        parts: list[ProductPart],
        variant: Acc16Variant,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
    ) -> None:
        super().__init__(out_shape)
        self._options, self._parts, self._variant = options, parts, variant
        self._wide = filters.in_channels // filters.groups
        self._pad = np.array([filters.x_zero_point], np.int32)
        self._origins, self._steps = _windows(filters, shape, out_shape)
        names = ["data", "weight", "origins", "steps", "pad", *variant.names, "dst"]
        self._names = names
        other_at = names.index("other") if "other" in names else 0
        firsts = [number * options.columns for number in range(len(parts))]
        self.places = [Place(n * self._wide, at, at, other_at) for n, at in enumerate(firsts)]
        if 0 in out_shape:
            self.places = []

    def calls(self, x: np.ndarray, out: np.ndarray, residual: np.ndarray | None) -> list[Call]:
        if not out.size:
            return []
        return [self._call(number, x, bits_of(out), residual) for number in range(len(self._parts))]

    def _call(self, number: int, x, out, residual: np.ndarray | None) -> Call:
        part, options = self._parts[number], self._options
        own = slice(number * options.columns, (number + 1) * options.columns)
        found: dict[str, np.ndarray] = {
            **part.arrays,
            "data": x.reshape(-1)[number * self._wide :],
            "weight": part.packed,
            "origins": self._origins,
            "steps": self._steps,
            "pad": self._pad,
            "dst": out.reshape(-1, out.shape[-1])[:, own],
        }
        if residual is not None:
            found["other"] = residual.reshape(-1, residual.shape[-1])[:, own]
        arrays = [found[name] for name in self._names]
        by_rows = ("origins", "other", "dst")
        axes = [0 if name in by_rows else None for name in self._names]
        variant, rows = self._variant, len(self._origins)
        work = rows * options.depth * options.columns
        call = Call(variant.library, variant.symbols, arrays, axes, variant.block, work)
        call.set_rows(rows, work)
        return call


def pack_conv_acc16(
    weight: Any,
    *,
    x_zero_point: int = 0,
    weight_zero_point: Any = 0,
    strides: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilations: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    layout: Literal["oi", "fbgemm"] = "oi",
    outliers: bool = False,
    output: Output | None = None,
    target: str | CpuTarget = "host",
) -> PackedConvAcc16:
    """Pack the weight of convolutions of uint8 that are accumulated in 16 bits: FBGEMM's acc16 with its im2col.

    The windows of a group, position by position, padding and the holes of a transposed convolution filled with
    `x_zero_point`, are the rows of a left matrix; its product is that of `pack_gemm_acc16`, pairs and stretches of 256
    counted from the beginning of the window, as `reference.conv_acc16` has it bit for bit on all levels. Only what a
    tile of rows needs is gathered at a time.

    Args:
        weight: int8, as of `pack_conv`.
        x_zero_point, weight_zero_point, strides, padding, dilations, groups, transposed, output_padding, layout: as of
            `pack_conv`.
        outliers: split off the weights outside [-64, 64), as of `pack_gemm_acc16`.
        output: what becomes of the sums, from which the zero points have been taken off; without it they are returned.
        target: "host", or a level's name.

    Returns:
        What convolves; the input of a call is uint8 `(batch, *sizes, in_channels)`.

    Raises:
        OperandError: an argument does not fit; also if weights are so large that an exact sum could exceed 32 bits.
        TargetError: no such level, or this CPU lacks it.
    """
    filters = filters_of(
        expect(array(weight, "weight"), "weight", "int8"),
        x_dtype="uint8",
        x_zero_point=x_zero_point,
        weight_zero_point=weight_zero_point,
        strides=strides,
        padding=padding,
        dilations=dilations,
        groups=groups,
        transposed=transposed,
        output_padding=output_padding,
        layout=layout,
        target=target,
    )
    return PackedConvAcc16(filters, output or Output(), outliers)


def _matrices(filters: Filters) -> list[np.ndarray]:
    """The weight of each group, int8 `(taps * in / groups, out / groups)`."""
    raw = (filters.values + per_channel(filters.zeros, filters.values.ndim)).astype(np.int8)
    last = np.moveaxis(raw, 1, -1).reshape(filters.groups, -1, raw[0].size)
    return [matrix.T for matrix in last]


def _three(axes: Sequence[Axis]) -> list[Axis]:
    return [Axis()] * (3 - len(axes)) + list(axes)


def _windows(filters: Filters, shape, out_shape) -> tuple[np.ndarray, np.ndarray]:
    """`origins` and `steps` of `topi.Acc16Form`'s gathered rows."""
    batch, channels = shape[0], shape[-1]
    axes = _three(filters.sized(shape[1:-1]))
    extents = (1,) * (3 - filters.rank) + tuple(out_shape[1:-1])
    tables, begins = [], []
    distance, held = channels, 0
    for axis, out in reversed(list(zip(axes, extents, strict=True))):
        at = np.arange(out)[:, None]
        taps = np.arange(axis.kernel) * axis.dilation
        if filters.transposed:
            moved = at + axis.before - taps
            place, hole = np.divmod(moved, axis.stride)
            inside = (hole == 0) & (place >= 0) & (place < axis.size)
        else:
            place = at * axis.stride + taps - axis.before
            inside = (place >= 0) & (place < axis.size)
        tables.append(np.where(inside, place * distance, -1).reshape(-1))
        begins.append(held + np.arange(out) * axis.kernel)
        held += tables[-1].size
        distance *= axis.size
    grid = np.meshgrid(np.arange(batch) * distance, *reversed(begins), indexing="ij")
    origins = np.stack(grid, axis=-1).reshape(-1, 4)
    return origins.astype(np.int32), np.concatenate(tables).astype(np.int32)
