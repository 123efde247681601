"""Integer convolutions with packed weights: one to three axes, groups, depthwise, transposed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import (
    OperandError,
    array,
    contiguous,
    expect,
    instance,
    integer,
    level,
    one_of,
)
from lowgemm.ops._conv_plan import Calls, Filters, Plan, per_channel
from lowgemm.ops._output import EIGHT_BIT, Output, spread, store_type
from lowgemm.ops._prepared import bits_of, result
from lowgemm.packing import Axis
from lowgemm.targets import CpuTarget

_SIZES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}


class PackedConv:
    """The convolution with one packed weight, and its output stage: what `pack_conv` returns.

    Each size of the input has kernels of its own, compiled when it first comes. Several threads may call at a time.
    """

    def __init__(self, filters: Filters, output: Output) -> None:
        instance("output", output, Output)
        self._filters, self.output = filters, output
        self.target = filters.target
        self.in_channels, self.out_channels = filters.in_channels, filters.out_channels
        self._in, self._out = np.dtype(filters.x_dtype), store_type(output.dtype)
        self._plans: dict[tuple[int, ...], Calls] = {}
        if output.row_scale:
            raise OperandError("output.row_scale: a convolution has none")
        # Refuse what does not fit now, not when the first input comes.
        output.columns(filters.out_channels, filters.groups)
        output.integer_bias(filters.out_channels)

    def __call__(
        self, x: Any, out: np.ndarray | None = None, *, residual: Any = None
    ) -> np.ndarray:
        """The convolution, and what the output stage makes of it: `pack_conv` has the formula.

        Args:
            x: `(batch, *sizes, in_channels)`, contiguous, in the dtype packed for.
            out: where to write, contiguous, apart from `x`; else a new array.
            residual: of the output's shape, contiguous, if the output stage has one.

        Returns:
            `(batch, *out_sizes, out_channels)` of the output stage's dtype.

        Raises:
            OperandError: naming the argument, what was expected and what came.
        """
        if not (
            type(x) is np.ndarray
            and x.dtype is self._in
            and x.shape in self._plans
            and x.flags.carray
        ):
            x = self._checked(x)
        plan = self._plan(x.shape)
        other = self._checked_residual(residual, plan.out_shape)
        out = result(out, plan.out_shape, self._out, x, *([] if other is None else [other]))
        plan.run(x, out, other)
        return out

    def bind(self, x: np.ndarray, out: np.ndarray, *, residual: Any = None) -> Callable[[], None]:
        """A function without arguments that convolves what these arrays hold when it is called.

        It costs less than a call with arrays. It is for one thread at a time. Arguments and errors are those of a call.
        """
        x = self._checked(x)
        plan = self._plan(x.shape)
        other = self._checked_residual(residual, plan.out_shape)
        out = result(out, plan.out_shape, self._out, x, *([] if other is None else [other]))
        calls = plan.calls(x, out, other)
        if len(calls) == 1:
            return calls[0]

        def run() -> None:
            for call in calls:
                call()

        return run

    def with_output(self, output: Output) -> PackedConv:
        """The same packed weight with another output stage.

        Args:
            output: in the place of the first one.

        Raises:
            OperandError: it does not fit the convolution, as in `pack_conv`.
        """
        return PackedConv(self._filters, output)

    def out_shape(self, x_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the output for an input.

        Args:
            x_shape: the input's, `(batch, *sizes, in_channels)`.

        Returns:
            `(batch, *out_sizes, out_channels)`, with the sizes of `pack_conv`.

        Raises:
            OperandError: the input has another number of axes or channels, or is too small.
        """
        filters = self._filters
        if len(x_shape) != filters.rank + 2 or x_shape[-1] != filters.in_channels:
            wanted = ("batch", *_SIZES[filters.rank], filters.in_channels)
            shape = ", ".join(map(str, wanted))
            raise OperandError(f"x: expected shape ({shape}), got {tuple(x_shape)}")
        sizes = tuple(filters.out_sizes(x_shape[1:-1]))
        if min(sizes) < 1:
            text = f"x: expected sizes that the kernel {filters.kernel} fits, got {x_shape[1:-1]}"
            raise OperandError(text)
        return (x_shape[0], *sizes, filters.out_channels)

    def _checked(self, x: Any) -> np.ndarray:
        x = array(x, "x")
        filters = self._filters
        if x.dtype != self._in or x.ndim != filters.rank + 2 or x.shape[-1] != filters.in_channels:
            expect(x, "x", self._in.name, ("batch", *_SIZES[filters.rank], filters.in_channels))
        return contiguous(x, "x")

    def _checked_residual(self, residual: Any, shape: tuple[int, ...]) -> np.ndarray | None:
        wanted = self.output.residual
        if (residual is not None) != (wanted is not None):
            state = "needs a" if wanted else "takes no"
            raise OperandError(f"residual: this convolution {state} residual")
        if wanted is None:
            return None
        kinds = (wanted.dtype, "uint16") if wanted.dtype == "bfloat16" else wanted.dtype
        found = expect(array(residual, "residual"), "residual", kinds, shape)
        return bits_of(contiguous(found, "residual"))

    def _plan(self, shape: tuple[int, ...]) -> Calls:
        plan = self._plans.get(shape)
        if plan is None:
            out_shape = self.out_shape(shape)
            if math.prod(out_shape) >= 2**31:
                raise OperandError(f"x: expected an output below 2^31 elements, got {out_shape}")
            plan = self._planned(shape, out_shape)
            self._plans[shape] = plan
        return plan

    def _planned(self, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Calls:
        return Plan(self._filters, self.output, shape, out_shape)


def pack_conv(
    weight: Any,
    *,
    x_dtype: str = "uint8",
    x_zero_point: int = 0,
    weight_zero_point: Any = 0,
    strides: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilations: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    layout: Literal["oi", "fbgemm"] = "oi",
    output: Output | None = None,
    target: str | CpuTarget = "host",
) -> PackedConv:
    """Pack the weight of convolutions over one, two or three axes, of activations that have their channels last.

        sum_{t, i} (x[n, p * stride + t * dilation - begin, i] - x_zero_point) * (w[o, i, t] - weight_zero_point[o])

    in exact 32-bit integers, then the output stage; transposed, each input position q adds to the outputs
    q * stride + t * dilation - begin. Outside of the input lies the zero point. The definition is FBGEMM's `conv_ref`
    (ONNX's ConvInteger), sizes are ONNX's: (size + begin + end - dilation * (kernel - 1) - 1) // stride + 1, transposed
    (size - 1) * stride + dilation * (kernel - 1) + 1 + output_padding - begin - end.

    Args:
        weight: int8 or uint8 `(out, in / groups, *kernel)`, transposed `(in, out / groups, *kernel)`; in the layout
            "fbgemm" `(groups, *kernel, in / groups, out / groups)`, transposed
            `(groups, out / groups, *kernel, in / groups)`. The number of its axes says that of the input.
        x_dtype: of the input: uint8 or int8.
        x_zero_point: the code of 0 in the input.
        weight_zero_point: that of the weight: a scalar, one for each group, or one for each output channel.
        strides, dilations: one for all axes, or one for each.
        padding: one number for all ends of all axes, one for both ends of each axis, or all begins, then all ends.
        groups: of channels; as many as input channels make a depthwise convolution, with any number of outputs each.
        transposed: whether it is the transposed convolution.
        output_padding: more outputs at the end of a transposed convolution's axes.
        layout: in which order the weight's axes are.
        output: what becomes of the sums; without it they are returned.
        target: "host", or a level's name.

    Returns:
        What convolves; the input of a call is `(batch, *sizes, in_channels)`.

    Raises:
        OperandError: an argument does not fit; also if weights are so large that a sum could exceed 32 bits.
        TargetError: no such level, or this CPU lacks it.
    """
    filters = filters_of(
        weight,
        x_dtype=x_dtype,
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
    return PackedConv(filters, output or Output())


def filters_of(
    weight: Any,
    *,
    x_dtype: str,
    x_zero_point: int,
    weight_zero_point: Any,
    strides: int | Sequence[int],
    padding: int | Sequence[int],
    dilations: int | Sequence[int],
    groups: int,
    transposed: bool,
    output_padding: int | Sequence[int],
    layout: str,
    target: str | CpuTarget,
) -> Filters:
    """The checked arguments of `pack_conv`.

    Raises:
        OperandError, TargetError: as there.
    """
    one_of("x_dtype", x_dtype, EIGHT_BIT)
    low = 0 if x_dtype == "uint8" else -128
    point = integer(x_zero_point, "x_zero_point", low, low + 255)
    w = expect(array(weight, "weight"), "weight", EIGHT_BIT)
    groups = integer(groups, "groups", 1)
    w = _plain_layout(w, layout, groups, transposed)
    if transposed:
        w = _turned(w, groups)
    zeros = _weight_zeros(weight_zero_point, w.dtype, len(w), groups)
    values = w.astype(np.int16) - per_channel(zeros, w.ndim)
    _check_sums(values, point - low, low + 255 - point)
    more = _per_axis(output_padding, "output_padding", w.ndim - 2, 0)
    if any(more) and not transposed:
        raise OperandError("output_padding: only a transposed convolution takes it")
    return Filters(
        values=values,
        zeros=zeros - (128 if w.dtype == np.uint8 else 0),
        x_dtype=x_dtype,
        x_zero_point=point,
        axes=_axes(w.shape[2:], strides, padding, dilations),
        groups=groups,
        in_channels=w.shape[1] * groups,
        transposed=bool(transposed),
        output_padding=more,
        target=level(target),
    )


def _plain_layout(w: np.ndarray, layout: str, groups: int, transposed: bool) -> np.ndarray:
    """The weight as `(out, in / groups, *kernel)`, transposed `(in, out / groups, *kernel)`."""
    one_of("layout", layout, ("oi", "fbgemm"))
    if layout == "oi":
        if not 3 <= w.ndim <= 5:
            raise OperandError(f"weight: expected 3 to 5 axes, got shape {w.shape}")
    else:
        if not 4 <= w.ndim <= 6 or w.shape[0] != groups:
            raise OperandError(
                f"weight: expected 4 to 6 axes, the first {groups} groups, got shape {w.shape}"
            )
        # (groups, *kernel, in, out), transposed (groups, out, *kernel, in).
        w = np.moveaxis(w, -1, 1)
        w = w if transposed else np.moveaxis(w, -1, 2)
        w = w.reshape(-1, *w.shape[2:])
    if w.size == 0:
        raise OperandError(f"weight: expected no axis to be empty, got shape {w.shape}")
    if w.shape[0] % groups:
        raise OperandError(f"groups: {groups} do not divide {w.shape[0]} channels of the weight")
    return w


def _turned(w: np.ndarray, groups: int) -> np.ndarray:
    """A transposed convolution's weight `(in, out / groups, *kernel)` as `(out, in / groups, *kernel)`."""
    split = w.reshape(groups, -1, *w.shape[1:])
    return np.swapaxes(split, 1, 2).reshape(groups * w.shape[1], -1, *w.shape[2:])


def _weight_zeros(zero_point: Any, dtype: np.dtype, channels: int, groups: int) -> np.ndarray:
    """Zero points int64 `(channels,)`."""
    values = np.asarray(zero_point)
    if values.dtype.kind not in "iu":
        raise OperandError(f"weight_zero_point: expected integers, got {values.dtype.name}")
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise OperandError(
            f"weight_zero_point: expected {limits.min} to {limits.max}, got {values.tolist()}"
        )
    return spread(values.astype(np.int64), "weight_zero_point", channels, groups)


def _check_sums(values: np.ndarray, below: int, above: int) -> None:
    """Refuse weights whose exact sum may not fit 32 bits, of activations from `-below` to `above`."""
    flat = values.reshape(len(values), -1).astype(np.int64)
    up, down = np.maximum(flat, 0).sum(1), np.maximum(-flat, 0).sum(1)
    most = np.maximum(up * above + down * below, up * below + down * above)
    if most.max() >= 2**31:
        channel = int(most.argmax())
        raise OperandError(f"weight: sums of output channel {channel} may not fit 32 bits")


def _per_axis(value: Any, name: str, rank: int, low: int) -> tuple[int, ...]:
    if np.ndim(value) == 0:
        return (integer(value, name, low),) * rank
    values = tuple(integer(each, name, low) for each in value)
    if len(values) != rank:
        raise OperandError(f"{name}: expected one or {rank} values, got {len(values)}")
    return values


def _axes(kernel, strides: Any, padding: Any, dilations: Any) -> tuple[Axis, ...]:
    """The axes, without sizes."""
    rank = len(kernel)
    if np.ndim(padding) and len(padding) == 2 * rank:
        begins, ends = (_per_axis(p, "padding", rank, 0) for p in (padding[:rank], padding[rank:]))
    elif np.ndim(padding) and len(padding) != rank:
        raise OperandError(
            f"padding: expected one, {rank} or {2 * rank} values, got {len(padding)}"
        )
    else:
        begins = ends = _per_axis(padding, "padding", rank, 0)
    steps, spans = (
        _per_axis(strides, "strides", rank, 1),
        _per_axis(dilations, "dilations", rank, 1),
    )
    rows = zip(kernel, steps, begins, ends, spans, strict=True)
    return tuple(Axis(0, *row) for row in rows)
