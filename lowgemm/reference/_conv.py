"""Integer convolution over one, two or three spatial axes: the exact sums, modulo 2**32."""

from collections.abc import Sequence

import numpy as np

from lowgemm.errors import InputError
from lowgemm.reference._integer import each_column, wrap_i32
from lowgemm.reference._windows import correlate, out_shape, spread

CHANNELS_LAST = ("NWC", "NHWC", "NDHWC")
CHANNELS_FIRST = ("NCW", "NCHW", "NCDHW")


def conv_i32(
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: int = 0,
    w_zero_point: int | np.ndarray = 0,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    layout: str | None = None,
    *,
    transposed: bool = False,
    output_padding: Sequence[int] | None = None,
) -> np.ndarray:
    """The convolution of integers modulo 2**32, padded with the zero point of `x` (the real 0).

    With spatial positions p of the output and taps t (vectors over the spatial axes), per group:

        acc[n, p, o] = sum_{i, t} (x[n, p * stride + t * dilation - begin, i] - x_zero_point)
                                  * (w[o, i, t] - w_zero_point[o])

    and transposed, where every input position q adds to p = q * stride + t * dilation - begin:

        acc[n, p, o] = sum_{i, t, q -> p} (x[n, q, i] - x_zero_point) * (w[i, o, t] - w_zero_point[o])

    It is FBGEMM's `conv_ref` with the zero points of both operands taken off: its im2col fills padding and the holes of
    a transposed convolution with the zero point. Sizes are ONNX's: (in + begin + end - dilation * (kernel - 1) - 1)
    // stride + 1; transposed, (in - 1) * stride + dilation * (kernel - 1) + 1 + output_padding - begin - end.

    Args:
        x: uint8 or int8, one to three spatial axes in `layout`.
        w: uint8 or int8, in either layout `(out, in / group, *kernel)`; transposed `(in, out / group, *kernel)`.
        x_zero_point: a scalar.
        w_zero_point: a scalar, `(group,)` or `(out,)`.
        strides, dilations: one for each spatial axis; None for ones.
        pads: all begins, then all ends; None for zeros.
        group: number of groups of channels.
        layout: "NWC", "NHWC", "NDHWC", "NCW", "NCHW" or "NCDHW", of `x` and of the result; None for channels last.
        transposed: the transposed convolution.
        output_padding: positions added at the end of a transposed convolution's axes; None for zeros.

    Returns:
        int32, in `layout`.

    Raises:
        InputError: numbers of axes, channels or groups do not fit, or the output would be empty.
    """
    rank = x.ndim - 2
    last = _is_last(layout, x)
    attrs = {
        "kernel_shape": list(w.shape[2:]),
        "strides": _per_axis("strides", strides, rank, 1),
        "pads": _per_axis("pads", pads, 2 * rank, 0),
        "dilations": _per_axis("dilations", dilations, rank, 1),
        "output_padding": _per_axis("output_padding", output_padding, rank, 0),
        "group": group,
    }
    channels = x.shape[-1] if last else x.shape[1]
    out = _check_weight(w, rank, channels, group, transposed)
    zero = each_column("w_zero_point", w_zero_point, group, out)

    data = np.moveaxis(x, -1, 1) if last else x
    data = data.astype(np.float64) - x_zero_point
    tail = (1,) * rank
    if transposed:
        weight = w.reshape(group, channels // group, out // group, *w.shape[2:]).astype(np.float64)
        weight -= zero.reshape(group, 1, out // group, *tail)
        acc = spread(data, weight.reshape(w.shape), attrs)
        empty = min(acc.shape) == 0
    else:
        empty = min(out_shape(attrs, data.shape[2:])) <= 0
        weight = w - zero.reshape(out, 1, *tail)
        acc = np.zeros(()) if empty else correlate(data, weight, attrs, 0)
    if empty:
        raise InputError(
            f"x {x.shape} is too small for a kernel of {w.shape[2:]}: the output is empty"
        )
    acc = np.moveaxis(acc, 1, -1) if last else acc
    return np.ascontiguousarray(wrap_i32(acc))


def conv2d_i32(
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: int = 0,
    w_zero_point: int | np.ndarray = 0,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    group: int = 1,
    layout: str = "NHWC",
) -> np.ndarray:
    """`conv_i32` of two spatial axes: (vertical, horizontal); pads top, left, bottom, right."""
    return conv_i32(x, w, x_zero_point, w_zero_point, strides, pads, dilations, group, layout)


def im2col(
    x: np.ndarray,
    kernel: Sequence[int],
    x_zero_point: int = 0,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    *,
    transposed: bool = False,
    output_padding: Sequence[int] | None = None,
) -> np.ndarray:
    """The windows of a convolution: FBGEMM's `im2col_ref`, padding and holes filled with the zero point.

    Args:
        x: one to three spatial axes, channels last; the rest as of `conv_i32`.

    Returns:
        `(batch, *out, taps, channels)` of the dtype of `x`, the taps in the order of the kernel's positions.
    """
    rank = x.ndim - 2
    steps = _per_axis("strides", strides, rank, 1)
    ends = _per_axis("pads", pads, 2 * rank, 0)
    apart = _per_axis("dilations", dilations, rank, 1)
    more = _per_axis("output_padding", output_padding, rank, 0)
    spans = [d * (k - 1) for d, k in zip(apart, kernel, strict=True)]
    margin = max(ends) + max(spans) + max(more) + 1
    # A canvas with room on all sides, the input in it spread out if the convolution is transposed.
    spread_out = steps if transposed else [1] * rank
    sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], spread_out, strict=True)]
    whole = [n + 2 * margin for n in sizes]
    canvas = np.full((len(x), *whole, x.shape[-1]), x_zero_point, x.dtype)
    inside = [slice(margin, margin + n, s) for n, s in zip(sizes, spread_out, strict=True)]
    canvas[:, *inside] = x
    outs, jumps = [], []
    for axis in range(rank):
        begin, end = ends[axis], ends[axis + rank]
        if transposed:
            outs.append(sizes[axis] + spans[axis] + more[axis] - begin - end)
            jumps.append(1)
        else:
            outs.append((sizes[axis] + begin + end - spans[axis] - 1) // steps[axis] + 1)
            jumps.append(steps[axis])
    windows = []
    for tap in np.ndindex(*kernel):
        cut = []
        for axis, position in enumerate(tap):
            moved = position * apart[axis]
            first = margin + (ends[axis] - moved if transposed else moved - ends[axis])
            cut.append(slice(first, first + (outs[axis] - 1) * jumps[axis] + 1, jumps[axis]))
        windows.append(canvas[:, *cut])
    return np.stack(windows, axis=-2)


def _is_last(layout: str | None, x: np.ndarray) -> bool:
    if not 3 <= x.ndim <= 5:
        raise InputError(f"x has {x.ndim} axes; a convolution takes 3 to 5")
    last, first = CHANNELS_LAST[x.ndim - 3], CHANNELS_FIRST[x.ndim - 3]
    if layout not in (None, last, first):
        raise InputError(f"layout is {layout!r}; for {x.ndim} axes it is {last!r} or {first!r}")
    return layout != first


def _per_axis(name: str, given: Sequence[int] | None, count: int, default: int) -> list[int]:
    values = [default] * count if given is None else [int(value) for value in given]
    if len(values) != count or min(values) < default:
        raise InputError(f"{name} is {given}; expected {count} integers of at least {default}")
    return values


def _check_weight(w: np.ndarray, rank: int, channels: int, group: int, transposed: bool) -> int:
    """The number of output channels, of weights that fit the input's."""
    if w.ndim != rank + 2:
        raise InputError(f"w has {w.ndim} axes, expected {rank + 2} as x has")
    first, second = w.shape[:2]
    fits = first == channels if transposed else second * group == channels
    even = channels % group == 0 if transposed else first % group == 0
    if not (fits and even):
        form = "(in, out / group, ...)" if transposed else "(out, in / group, ...)"
        raise InputError(f"w {w.shape} is no {form} for {channels} channels in {group} groups")
    return second * group if transposed else first
