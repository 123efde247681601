"""Which kernels a convolution of given sizes consists of, and what they take."""

from __future__ import annotations

import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lowgemm.ops._arrays import aligned
from lowgemm.ops._call import Call, address_of
from lowgemm.ops._conv_kernels import Depthwise, Grouped, Kernel, kernel_for
from lowgemm.ops._library import Library, kernels, runtime
from lowgemm.ops._output import EIGHT_BIT, Output, stage_arguments
from lowgemm.ops._phases import Phase, apart, phases, transposed_size
from lowgemm.ops._prepared import bits_of
from lowgemm.packing import (
    FLAT,
    Axis,
    ConvPacking,
    ConvShape,
    DepthwisePacking,
    DirectDepthwisePacking,
    GroupedPacking,
)
from lowgemm.targets import CpuTarget
from lowgemm.tiling import row_image

_Packing = ConvPacking | DepthwisePacking | DirectDepthwisePacking | GroupedPacking


# Products that a kernel more must save: what takes some 5 us.
_LEAST_SAVED = 500_000


@dataclass(frozen=True, eq=False)
class Filters:
    """A weight and how it is applied; packed for kernels when they ask for it.

    `values` int16 `(out, in / groups, *kernel)` are the weights without their zero points, which are `zeros` `(out,)`,
    of weights moved into the range of int8. `axes` have no sizes yet.
    """

    values: np.ndarray
    zeros: np.ndarray
    x_dtype: str
    x_zero_point: int
    axes: tuple[Axis, ...]
    groups: int
    in_channels: int
    transposed: bool
    output_padding: tuple[int, ...]
    target: CpuTarget
    _packed: dict[tuple, _Packed] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return len(self.axes)

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.values.shape[2:]

    @property
    def out_channels(self) -> int:
        return self.values.shape[0]

    @cached_property
    def depthwise(self) -> bool:
        """Whether each group has one input channel. Outputs that fill vectors are better taken as dense products."""
        each = self.out_channels // self.groups
        return self.groups == self.in_channels > 1 and each % self.target.lanes != 0

    @cached_property
    def passes(self) -> int:
        """How many int8 numbers add up to a weight without its zero point. If one does, zero points cost nothing."""
        return max(-(-int(self.values.max()) // 127), -(int(self.values.min()) // 128), 1)

    def sized(self, sizes: Sequence[int]) -> list[Axis]:
        """The axes of an input."""
        return [replace(axis, size=size) for axis, size in zip(self.axes, sizes, strict=True)]

    def out_sizes(self, sizes: Sequence[int]) -> Iterator[int]:
        """The extents of the output's axes."""
        for axis, more in zip(self.sized(sizes), self.output_padding, strict=True):
            yield transposed_size(axis, more) if self.transposed else axis.out

    def phases(self, sizes: Sequence[int]) -> list[tuple[Phase, ...]]:
        """The ordinary convolutions that this one consists of: their axes."""
        each = []
        for axis, more in zip(self.sized(sizes), self.output_padding, strict=True):
            whole = Phase(0, 1, tuple(range(axis.kernel)), axis)
            found = phases(axis, more) if self.transposed else [whole]
            each.append([phase.trimmed() for phase in found])
        if len(each) == 3:
            each[0] = self._planes_apart(*each)
        return list(itertools.product(*each))

    def _planes_apart(self, planes: list[Phase], *others: list[Phase]) -> list[Phase]:
        """`planes`, in parts whose windows stick out alike where kernels for each part are worth what they save."""
        found = []
        # Products of a plane of an image with one of the window.
        each = self.out_channels * self.in_channels // self.groups
        for axis in others:
            each *= sum(p.axis.out * p.axis.kernel for p in axis)
        for phase in planes:
            parts = apart(phase)
            saved = _products(phase) - sum(map(_products, parts))
            pays = saved * each >= _LEAST_SAVED * (len(parts) - 1)
            found += parts if pays else [phase]
        return found

    def packed(self, packing: _Packing, phase: Sequence[Phase], paired: int = 0) -> _Packed:
        """The weights of a phase in the order of `packing`, or of pairs of words in tiles of `paired` panels."""
        key = (packing, paired, *(p.taps for p in phase))
        if key not in self._packed:
            self._packed[key] = self.pack(packing, phase, paired)
        return self._packed[key]

    def pack(self, packing: _Packing, phase: Sequence[Phase], paired: int = 0) -> _Packed:
        """The same, not kept."""
        values = self.values
        for axis, p in enumerate(phase, 2):
            # Outputs that no tap reaches get a tap of zeros.
            values = values.take(p.taps, axis) if p.taps else np.zeros_like(values.take([0], axis))
        sums = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.int64)
        if isinstance(packing, DirectDepthwisePacking):
            packed = packing.pack(values)
        elif isinstance(packing, DepthwisePacking):
            if values.ndim == 3:
                values = values[..., None]
            packed = np.concatenate([packing.pack(part) for part in self._addends(values)], axis=1)
        elif isinstance(packing, GroupedPacking) or self.passes == 1:
            packed = packing.pack(values.astype(np.int8))
        else:
            raw = values + per_channel(self.zeros, values.ndim)
            packed = packing.pack(raw.astype(np.int8), self.zeros)
        places = None
        if paired:
            assert isinstance(packing, ConvPacking)
            packed, places = packing.pair(packed, paired)
        return _Packed(aligned(packed), sums, places)

    def _addends(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """`values` as the sum of int8 arrays, one for each pass."""
        for _ in range(self.passes):
            part = values.clip(-128, 127)
            values = values - part
            yield part.astype(np.int8)


def _products(phase: Phase) -> int:
    return phase.axis.out * phase.axis.kernel


@dataclass(frozen=True, eq=False)
class _Packed:
    """Packed weights, the sums of each output channel's without zero points, int64, and places of words in pairs."""

    weight: np.ndarray
    sums: np.ndarray
    places: np.ndarray | None


@dataclass(frozen=True)
class _View:
    """A part of an array: shape, strides and offset in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def declared(self) -> tuple[int, ...] | None:
        """The strides, or None if elements lie one after the other."""
        pairs = zip(self.shape, self.strides, _compact(self.shape), strict=True)
        return None if all(s == c or n == 1 for n, s, c in pairs) else self.strides

    def of(self, whole: np.ndarray) -> np.ndarray:
        """The part of `whole`."""
        strides = [s * whole.itemsize for s in self.strides]
        flat = whole.reshape(-1)[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides)


@dataclass(frozen=True)
class Place:
    """Where a call of several begins, in elements of the input, the output and the residual, and which argument this
    is."""

    x: int
    out: int
    other: int
    other_at: int


class Calls(ABC):
    """The calls that compute the output for one shape of the input; `places` says where each begins."""

    places: list[Place]

    def __init__(self, out_shape: tuple[int, ...]) -> None:
        self.out_shape = out_shape
        self._local = threading.local()

    @abstractmethod
    def calls(self, x: np.ndarray, out: np.ndarray, residual: np.ndarray | None) -> list[Call]:
        """The calls for these arrays, which they keep alive."""

    def run(self, x: np.ndarray, out: np.ndarray, residual: np.ndarray | None) -> None:
        """Convolve, by calls that are described once in each thread."""
        calls: list[Call] | None = getattr(self._local, "calls", None)
        if calls is None:
            calls = self.calls(x, out, residual)
            for call in calls:
                call.release()
            self._local.calls = calls
        else:
            for place, call in zip(self.places, calls, strict=True):
                call.point(0, address_of(x) + place.x * x.itemsize)
                call.point(call.last, address_of(out) + place.out * out.itemsize)
                if residual is not None:
                    moved = place.other * residual.itemsize
                    call.point(place.other_at, address_of(residual) + moved)
        for call in calls:
            call()


class Plan(Calls):
    """The kernels for one shape of the input."""

    def __init__(self, filters: Filters, output: Output, shape, out_shape) -> None:
        super().__init__(out_shape)
        self._parts: list[_Part] = []
        self.places = []
        if 0 in out_shape:
            return
        for phase in filters.phases(shape[1:-1]):
            self._parts.append(_Part(filters, output, shape[0], phase, out_shape))
        symbols: dict[str, str] = {}
        functions: dict[str, _Part] = {}
        for part in self._parts:
            # Phases of the same geometry have the same code.
            part.symbol = symbols.setdefault(repr(part.params), f"part{len(symbols)}")
            functions[part.symbol] = part
            self.places.append(Place(0, part.dst.offset, part.other.offset, part.residual_at))
        params = {symbol: part.params for symbol, part in functions.items()}

        def make():
            return {symbol: part.make() for symbol, part in functions.items()}

        self._library = kernels("qconv", params, filters.target, make)

    def calls(self, x: np.ndarray, out: np.ndarray, residual: np.ndarray | None) -> list[Call]:
        out = bits_of(out)
        return [part.call(self._library, x, out, residual) for part in self._parts]


class _Part:
    """One kernel of a plan: the convolution, or one of those that a transposed one consists of."""

    def __init__(
        self,
        filters: Filters,
        output: Output,
        batch: int,
        phase: Sequence[Phase],
        out_shape: tuple[int, ...],
    ) -> None:
        self.symbol = ""
        self._filters = filters
        outputs = math.prod(p.axis.out for p in phase)
        whole = all(p.step == 1 for p in phase) and outputs == math.prod(out_shape[1:-1])
        shape = _conv_shape(filters, batch, phase, whole)
        self._form = output.form(filters.passes > 1 and not filters.depthwise, False)
        self._kernel = kernel_for(filters, shape, phase, self._form, runtime().threads)
        self.other = _window(self._kernel, phase, whole, out_shape)
        pixels = filters.depthwise or isinstance(self._kernel, Grouped)
        self._data_shape = _data_shape(shape, pixels)
        self.dst = self.other
        if isinstance(self._kernel, Depthwise):
            kernel = self._kernel
            self.dst = _in_blocks(self.other, shape, kernel.packing, kernel.config.columns)
        self.params = {
            "kind": type(self._kernel).__name__,
            "kernel": asdict(self._kernel),
            "form": self._form,
            "strides": [self.dst.declared, self.other.declared],
        }
        packed = filters.packed(self._kernel.packing, phase, self._kernel.paired)
        self._args = self._arguments(output, packed)
        self.residual_at = list(self._args).index("other") + 1 if output.residual else 0

    def _arguments(self, output: Output, packed: _Packed) -> dict[str, Any]:
        """What the kernel takes between its input and its output, in order; "other" is not known yet."""
        filters, packing = self._filters, self._kernel.packing
        channels = filters.out_channels
        point = filters.x_zero_point + (
            128 if self._kernel.flip and filters.x_dtype == "int8" else 0
        )
        each = {
            "offset": (output.integer_bias(channels) - point * packed.sums).astype(np.int32),
            "weight_zero": filters.zeros.astype(np.int32),
            **output.columns(channels, filters.groups),
        }
        dense = isinstance(packing, ConvPacking)
        pad = packing.pad_channels if dense else packing.pack_channels
        found: dict[str, Any] = {k: np.ascontiguousarray(pad(v)) for k, v in each.items()}
        found.update(_common_arguments(output), other=None)
        args: dict[str, Any] = {"weight": packed.weight}
        if packed.places is not None:
            args["places"] = packed.places
        if self._kernel.staged:
            args["pad"] = np.array([filters.x_zero_point], np.int32)
        return args | {name: found[name] for name in stage_arguments(self._form)}

    def make(self):
        """The scheduled function."""
        from lowgemm import topi
        from lowgemm.ops._buffers import strided

        func = self._kernel.function(topi.OutputForm(**self._form))
        views = {func.params[-1].name: self.dst, "other": self.other}
        declared = {name: view.declared for name, view in views.items()}
        return strided(func, {name: strides for name, strides in declared.items() if strides})

    def call(self, library: Library, x, out, residual: np.ndarray | None) -> Call:
        """The call for these arrays."""
        args = dict(self._args)
        if residual is not None:
            args["other"] = self.other.of(residual)
        arrays = [x.reshape(self._data_shape), *args.values(), self.dst.of(out)]
        return Call(library, self.symbol, arrays, work=self._kernel.shape.macs)


def _conv_shape(filters: Filters, batch: int, phase: Sequence[Phase], whole: bool) -> ConvShape:
    """The convolution over two axes, or three if it must be, that a phase is; `whole` says that it is all there is."""
    axes = [p.axis for p in phase]
    if whole and not filters.depthwise and all(axis == Axis(axis.size) for axis in axes):
        # A matrix product: pixels are rows.
        pixels = batch * math.prod(axis.size for axis in axes)
        height, width = row_image(pixels, filters.in_channels, runtime().threads)
        return _two_axes(filters, 1, Axis(height), Axis(width))
    if whole and len(axes) == 3 and axes[0] == Axis(axes[0].size):
        batch *= axes.pop(0).size
    if len(axes) == 1:
        # Depthwise kernels make one word of vertical neighbours.
        axes.insert(filters.depthwise, Axis())
    shape = _two_axes(filters, batch, *axes[-2:])
    return shape if len(axes) == 2 else replace(shape, planes=axes[0])


def _two_axes(filters: Filters, batch: int, rows: Axis, columns: Axis) -> ConvShape:
    return ConvShape(
        batch,
        rows.size,
        columns.size,
        filters.in_channels,
        filters.out_channels,
        (rows.kernel, columns.kernel),
        (rows.stride, columns.stride),
        (rows.before, columns.before, rows.after, columns.after),
        (rows.dilation, columns.dilation),
        filters.groups,
    )


def _data_shape(shape: ConvShape, pixels: bool) -> tuple[int, ...]:
    """The axes of the input, with one of `pixels` and one of channels, or one of both."""
    planes = () if shape.planes == FLAT else (shape.planes.size,)
    outer = (shape.batch, *planes, shape.height)
    if pixels:
        return (*outer, shape.width, shape.in_channels)
    return (*outer, shape.width * shape.in_channels)


def _window(
    kernel: Kernel, phase: Sequence[Phase], whole: bool, out_shape: tuple[int, ...]
) -> _View:
    """The outputs of a phase, with the axes of its kernel's output; `whole` says that they are all."""
    shape = kernel.shape
    planes = () if shape.planes == FLAT else (shape.planes.out,)
    extents = (shape.batch, *planes, *kernel.grid, shape.out_channels)
    steps = _compact(out_shape)
    if whole:
        return _View(extents, _compact(extents))
    offset = sum(p.first * step for p, step in zip(phase, steps[1:-1], strict=True))
    strides = [p.step * step for p, step in zip(phase, steps[1:-1], strict=True)]
    if len(phase) == 1:
        # The axis that the kernel has beside it has one element.
        strides.insert(extents[-2] == 1, 0)
    return _View(extents, (steps[0], *strides[-len(extents) + 2 :], 1), offset)


def _in_blocks(view: _View, shape: ConvShape, packing: DepthwisePacking, columns: int) -> _View:
    """`view` `(..., width, channels)` with the axes that depthwise kernels give their output."""
    *outer, width, channels = view.shape
    *steps, step, _ = view.strides
    if packing.stores_whole(shape, columns):
        inner = (packing.blocks(channels), packing.chunks, 4, 4)
        return _View((*outer, width, *inner), (*steps, step, *_compact(inner)), view.offset)
    segment = width // packing.segments
    extents = (*outer, packing.segments, segment, channels)
    return _View(extents, (*steps, segment * step, step, 1), view.offset)


def _compact(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of elements that lie one after the other."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _common_arguments(output: Output) -> dict[str, Any]:
    """What an output stage has once for all channels."""
    found: dict[str, Any] = {"out": output.params(), "table": output.table}
    if output.residual and output.dtype in EIGHT_BIT:
        found["add"] = output.sum_params()
    return found


def per_channel(values: np.ndarray, axes: int) -> np.ndarray:
    """`values` `(out,)` int16, along the first of `axes` axes."""
    return values.astype(np.int16).reshape(-1, *[1] * (axes - 1))
