"""Operators that join the elements of some axes: sums, extremes, softmax, normalizations."""

from collections.abc import Callable

import numpy as np

from lowgemm.reference._table import Attrs, Operator, rounded, to_double

Axes = tuple[int, ...]


def _log_sum_exp(x: np.ndarray, axis: Axes, keepdims: bool) -> np.ndarray:
    peak = x.max(axis=axis, keepdims=True)
    total = np.log(np.exp(x - peak).sum(axis=axis, keepdims=True)) + peak
    return total if keepdims else np.squeeze(total, axis)


_REDUCTIONS: dict[str, Callable[[np.ndarray, Axes, bool], np.ndarray]] = {
    "ReduceL1": lambda x, axis, keep: np.abs(x).sum(axis=axis, keepdims=keep),
    "ReduceL2": lambda x, axis, keep: np.sqrt(np.square(x).sum(axis=axis, keepdims=keep)),
    "ReduceLogSum": lambda x, axis, keep: np.log(x.sum(axis=axis, keepdims=keep)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda x, axis, keep: x.max(axis=axis, keepdims=keep),
    "ReduceMean": lambda x, axis, keep: x.mean(axis=axis, keepdims=keep),
    "ReduceMin": lambda x, axis, keep: x.min(axis=axis, keepdims=keep),
    "ReduceProd": lambda x, axis, keep: x.prod(axis=axis, keepdims=keep),
    "ReduceSum": lambda x, axis, keep: x.sum(axis=axis, keepdims=keep),
    "ReduceSumSquare": lambda x, axis, keep: np.square(x).sum(axis=axis, keepdims=keep),
}


def _reduction(function: Callable[[np.ndarray, Axes, bool], np.ndarray]) -> Operator:
    def run(attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return rounded(function(to_double(x), tuple(attrs["axes"]), bool(attrs["keepdims"])), x)

    return run


def _arg(pick: Callable[..., np.ndarray]) -> Operator:
    def run(attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axis = attrs["axis"]
        found = pick(np.flip(x, axis) if attrs["select_last_index"] else x, axis=axis)
        if attrs["select_last_index"]:
            found = x.shape[axis] - 1 - found
        return np.expand_dims(found, axis) if attrs["keepdims"] else found

    return run


def _softmax(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    power = np.exp(to_double(x) - x.max(axis=attrs["axis"], keepdims=True))
    return rounded(power / power.sum(axis=attrs["axis"], keepdims=True), x)


def _log_softmax(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    shifted = to_double(x) - x.max(axis=attrs["axis"], keepdims=True)
    return rounded(shifted - np.log(np.exp(shifted).sum(axis=attrs["axis"], keepdims=True)), x)


def _standardized(x: np.ndarray, axes: Axes, epsilon: float) -> np.ndarray:
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)


def _layer_norm(
    attrs: Attrs, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    axes = tuple(range(attrs["axis"], x.ndim))
    y = _standardized(to_double(x), axes, attrs["epsilon"]) * scale
    return rounded(y if bias is None else y + bias, x)


def _instance_norm(attrs: Attrs, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    shape = (-1, *[1] * (x.ndim - 2))
    y = _standardized(to_double(x), tuple(range(2, x.ndim)), attrs["epsilon"])
    return rounded(y * scale.reshape(shape) + bias.reshape(shape), x)


def _group_norm(attrs: Attrs, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    shape = (-1, *[1] * (x.ndim - 2))
    groups = to_double(x).reshape(x.shape[0], attrs["num_groups"], -1)
    y = _standardized(groups, (2,), attrs["epsilon"]).reshape(x.shape)
    return rounded(y * scale.reshape(shape) + bias.reshape(shape), x)


def _lp_norm(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    wide = to_double(x)
    norm = np.linalg.norm(wide, attrs["p"], attrs["axis"], keepdims=True)
    return rounded(wide / np.where(norm == 0, 1, norm), x)  # zeros stay zeros


def _lrn(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    size, channels = attrs["size"], x.shape[1]
    square, total = np.square(to_double(x)), np.zeros(x.shape)
    for c in range(channels):
        first = max(0, c - (size - 1) // 2)
        total[:, c] = square[:, first : c + size // 2 + 1].sum(axis=1)
    return rounded(x / (attrs["bias"] + attrs["alpha"] / size * total) ** attrs["beta"], x)


def _mean_variance(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    axes = tuple(attrs.get("axes", (0, 2, 3)))
    wide = to_double(x)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=axes, keepdims=True))
    return rounded(centred / (deviation + 1e-9), x)


OPERATORS: dict[str, Operator] = {
    **{op: _reduction(function) for op, function in _REDUCTIONS.items()},
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "Softmax": _softmax,
}
