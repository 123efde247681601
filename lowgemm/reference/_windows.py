"""Convolutions and pools: sums and extremes over windows, one window element ("tap") at a time.

Going tap by tap, every product is a plain matrix product over all pixels, for any number of spatial
axes, strides, dilations and groups.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from lowgemm.reference._table import Attrs, Operator, rounded, to_double


def padded(x: np.ndarray, pads: list[int], filler: float) -> np.ndarray:
    """`x` `(n, c, ...)` with `pads` (all begins, then all ends) around its spatial axes."""
    spatial = x.ndim - 2
    widths = [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]
    return np.pad(x, widths, constant_values=filler) if any(pads) else x


def taps(attrs: Attrs, out: list[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Every position in the window, with where its elements lie in the padded input."""
    for tap in itertools.product(*map(range, attrs["kernel_shape"])):
        where = tuple(
            slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
            for t, dilation, stride, size in zip(
                tap, attrs["dilations"], attrs["strides"], out, strict=True
            )
        )
        yield tap, where


def out_shape(attrs: Attrs, spatial: tuple[int, ...]) -> list[int]:
    """The spatial shape of the result.

    With ceil_mode a last window may reach over the end, but must begin inside or in the padding
    before.
    """
    count, sizes = len(spatial), []
    for i, size in enumerate(spatial):
        begin, end = attrs["pads"][i], attrs["pads"][count + i]
        stride = attrs["strides"][i]
        room = size + begin + end - attrs["dilations"][i] * (attrs["kernel_shape"][i] - 1) - 1
        steps = room // stride
        if attrs.get("ceil_mode"):
            steps = -(-room // stride)
            if steps * stride >= size + begin:
                steps -= 1
        sizes.append(steps + 1)
    return sizes


def correlate(x: np.ndarray, w: np.ndarray, attrs: Attrs, filler: float) -> np.ndarray:
    """sum over i, t of x[n, g * I + i, o * stride + t * dilation - pad] * w[g * O + o, i, t].

    Args:
        x: float64 `(n, groups * I, ...)`.
        w: float64 `(groups * O, I, ...)`.
        attrs: Conv's.
        filler: what lies outside of `x`.
    """
    group, (batch, channels) = attrs["group"], x.shape[:2]
    out = out_shape(attrs, x.shape[2:])
    wide = padded(x, attrs["pads"], filler)
    weight = w.reshape(group, -1, channels // group, *w.shape[2:])
    total = np.zeros((batch, group, weight.shape[1], int(np.prod(out))))
    for tap, where in taps(attrs, out):
        part = wide[(slice(None), slice(None), *where)].reshape(batch, group, channels // group, -1)
        rows = weight[(slice(None), slice(None), slice(None), *tap)]
        if rows.shape[1:] == (1, 1):  # depthwise: a matrix of one element is slow as a matrix
            total += rows * part
        else:
            total += np.matmul(rows, part)
    return total.reshape(batch, -1, *out)


def spread(x: np.ndarray, w: np.ndarray, attrs: Attrs) -> np.ndarray:
    """The transposed convolution: each input pixel adds its multiple of the kernel to the output, `strides` apart.

    Args:
        x: float64 `(n, groups * I, ...)`.
        w: float64 `(groups * I, O, ...)`.
        attrs: ConvTranspose's.

    Returns:
        float64 `(n, groups * O, ...)`, of (in - 1) * stride + dilation * (kernel - 1) + 1 + output_padding - pads.
    """
    group, spatial = attrs["group"], x.ndim - 2
    batch, channels = x.shape[:2]
    pads = attrs["pads"]
    full = [
        (size - 1) * stride + dilation * (k - 1) + 1 + extra
        for size, stride, dilation, k, extra in zip(
            x.shape[2:], attrs["strides"], attrs["dilations"], attrs["kernel_shape"],
            attrs["output_padding"], strict=True,
        )
    ]  # fmt: skip
    weight = w.reshape(group, channels // group, -1, *w.shape[2:])
    pixels = x.reshape(batch, group, channels // group, -1)
    outputs = weight.shape[2]
    total = np.zeros((batch, group * outputs, *full))
    for tap, where in taps(attrs, list(x.shape[2:])):
        rows = weight[(slice(None), slice(None), slice(None), *tap)].swapaxes(1, 2)
        part = np.matmul(rows, pixels).reshape(batch, group * outputs, *x.shape[2:])
        total[(slice(None), slice(None), *where)] += part
    inner = tuple(slice(pads[i], max(0, full[i] - pads[spatial + i])) for i in range(spatial))
    return total[(slice(None), slice(None), *inner)]


def _conv(attrs: Attrs, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    total = correlate(to_double(x), to_double(w), attrs, 0)
    return rounded(total if bias is None else total + _per_channel(bias, x.ndim), x)


def _per_channel(value: np.ndarray, rank: int) -> np.ndarray:
    return value.astype(np.float64).reshape(-1, *[1] * (rank - 2))


def _conv_transpose(
    attrs: Attrs, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    total = spread(to_double(x), to_double(w), attrs)
    return rounded(total if bias is None else total + _per_channel(bias, x.ndim), x)


def _room_at_end(attrs: Attrs, spatial: tuple[int, ...], out: list[int]) -> list[int]:
    """The pads, with what windows need that reach over the end (ceil_mode)."""
    count, pads = len(spatial), list(attrs["pads"])
    for i, size in enumerate(spatial):
        reach = (out[i] - 1) * attrs["strides"][i]
        reach += attrs["dilations"][i] * (attrs["kernel_shape"][i] - 1) + 1
        pads[count + i] = max(pads[count + i], reach - size - pads[i])
    return pads


def _max_pool(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    out = out_shape(attrs, x.shape[2:])
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    wide = padded(x, _room_at_end(attrs, x.shape[2:], out), least)
    best = np.full((*x.shape[:2], *out), least, x.dtype)
    for _, where in taps(attrs, out):
        best = np.maximum(best, wide[(slice(None), slice(None), *where)])
    return best


def _average_pool(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    """The mean of the elements inside; with count_include_pad of those and the (asked) padding."""
    out = out_shape(attrs, x.shape[2:])
    pads = _room_at_end(attrs, x.shape[2:], out)
    wide = padded(to_double(x), pads, 0)
    counted = np.ones((1, 1, *x.shape[2:]))
    if attrs["count_include_pad"]:
        counted = padded(counted, attrs["pads"], 1)
        beyond = [a - b for a, b in zip(pads, attrs["pads"], strict=True)]
        counted = padded(counted, beyond, 0)
    else:
        counted = padded(counted, pads, 0)
    total, count = np.zeros((*x.shape[:2], *out)), np.zeros((1, 1, *out))
    for _, where in taps(attrs, out):
        total += wide[(slice(None), slice(None), *where)]
        count += counted[(slice(None), slice(None), *where)]
    return rounded(total / count, x)


def _global_average_pool(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    return rounded(to_double(x).mean(axis=tuple(range(2, x.ndim)), keepdims=True), x)


def _global_max_pool(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


OPERATORS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
}
