"""Operators that move, choose or repeat elements."""

import numpy as np

from lowgemm.reference._table import Attrs, Operator


def _slice(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(
        attrs["axes"], attrs["starts"], attrs["ends"], attrs["steps"], strict=True
    ):
        # Counting down to the first element ends before index 0, which Python writes as None.
        index[axis] = slice(start, None if end < 0 else end, step)
    return x[tuple(index)]


def _split(attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, ...]:
    cuts = np.cumsum(attrs["split"])[:-1]
    return tuple(np.split(x, cuts, axis=attrs["axis"]))


def _concat(attrs: Attrs, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=attrs["axis"])


def _pad(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    rank = x.ndim
    begins, ends = attrs["pads"][:rank], attrs["pads"][rank:]
    # A negative number crops.
    crop = tuple(
        slice(max(-begin, 0), extent - max(-end, 0))
        for begin, end, extent in zip(begins, ends, x.shape, strict=True)
    )
    widths = [(max(begin, 0), max(end, 0)) for begin, end in zip(begins, ends, strict=True)]
    if attrs["mode"] == "constant":
        return np.pad(x[crop], widths, constant_values=np.asarray(attrs["value"], x.dtype))
    return np.pad(x[crop], widths, mode=attrs["mode"])


def _expand(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, attrs["shape"]).copy()


def _depth_to_space(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    b = attrs["blocksize"]
    if attrs["mode"] == "DCR":
        parts = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    b = attrs["blocksize"]
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * b * b, h // b, w // b)


OPERATORS: dict[str, Operator] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Gather": lambda attrs, x, indices: np.take(x, indices, axis=attrs["axis"]),
    "Pad": _pad,
    "Reshape": lambda attrs, x: x.reshape(attrs["shape"]),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": lambda attrs, x: np.squeeze(x, axis=tuple(attrs["axes"])),
    "Tile": lambda attrs, x: np.tile(x, attrs["repeats"]),
    "Transpose": lambda attrs, x: np.transpose(x, attrs["perm"]),
    "Unsqueeze": lambda attrs, x: np.expand_dims(x, axis=tuple(attrs["axes"])),
}
