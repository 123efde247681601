"""Operators on single elements."""

import math
from collections.abc import Callable

import numpy as np

from lowgemm.reference._table import Attrs, Operator, rounded, to_double

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Two forms, so that exp never overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _gelu(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    if attrs["approximate"] == "tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + _erf(x / math.sqrt(2)))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def _elu(alpha: float, x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _hard_sigmoid(alpha: float, beta: float, x: np.ndarray) -> np.ndarray:
    return np.clip(alpha * x + beta, 0, 1)


# name -> function of the attributes and a float64 array (or integers, as they are)
_UNARY: dict[str, Callable[[Attrs, np.ndarray], np.ndarray]] = {
    "Abs": lambda a, x: np.abs(x),
    "Acos": lambda a, x: np.arccos(x),
    "Acosh": lambda a, x: np.arccosh(x),
    "Asin": lambda a, x: np.arcsin(x),
    "Asinh": lambda a, x: np.arcsinh(x),
    "Atan": lambda a, x: np.arctan(x),
    "Atanh": lambda a, x: np.arctanh(x),
    "Ceil": lambda a, x: np.ceil(x),
    "Celu": lambda a, x: (
        np.maximum(x, 0) + np.minimum(0, a["alpha"] * np.expm1(np.minimum(x, 0) / a["alpha"]))
    ),
    "Clip": lambda a, x: np.clip(x, a["min"], a["max"]),
    "Cos": lambda a, x: np.cos(x),
    "Cosh": lambda a, x: np.cosh(x),
    "Elu": lambda a, x: _elu(a["alpha"], x),
    "Erf": lambda a, x: _erf(x),
    "Exp": lambda a, x: np.exp(x),
    "Floor": lambda a, x: np.floor(x),
    "Gelu": _gelu,
    "HardSigmoid": lambda a, x: _hard_sigmoid(a["alpha"], a["beta"], x),
    "HardSwish": lambda a, x: x * _hard_sigmoid(1 / 6, 0.5, x),
    "Identity": lambda a, x: x,
    "LeakyRelu": lambda a, x: np.where(x < 0, a["alpha"] * x, x),
    "Log": lambda a, x: np.log(x),
    "Mish": lambda a, x: x * np.tanh(_softplus(x)),
    "Neg": lambda a, x: -x,
    "Reciprocal": lambda a, x: 1 / x,
    "Relu": lambda a, x: np.maximum(x, 0),
    "Round": lambda a, x: np.rint(x),
    "Selu": lambda a, x: a["gamma"] * _elu(a["alpha"], x),
    "Sigmoid": lambda a, x: _sigmoid(x),
    "Sign": lambda a, x: np.sign(x),
    "Silu": lambda a, x: x * _sigmoid(x),
    "Sin": lambda a, x: np.sin(x),
    "Sinh": lambda a, x: np.sinh(x),
    "Softplus": lambda a, x: _softplus(x),
    "Softsign": lambda a, x: x / (1 + np.abs(x)),
    "Sqrt": lambda a, x: np.sqrt(x),
    "Tan": lambda a, x: np.tan(x),
    "Tanh": lambda a, x: np.tanh(x),
    "ThresholdedRelu": lambda a, x: np.where(x > a["alpha"], x, 0),
}

_BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Pow": np.power,
    "Sub": np.subtract,
}

_TO_BOOL: dict[str, Callable[..., np.ndarray]] = {
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}


def _unary(function: Callable[[Attrs, np.ndarray], np.ndarray]) -> Operator:
    return lambda attrs, x: rounded(function(attrs, to_double(x)), x)


def _binary(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Operator:
    return lambda attrs, a, b: rounded(function(to_double(a), to_double(b)), a)


def _to_bool(function: Callable[..., np.ndarray]) -> Operator:
    return lambda attrs, *inputs: function(*inputs)


def _div(attrs: Attrs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return rounded(to_double(a) / to_double(b), a)
    # Integers are cut off towards zero.
    quotient = np.abs(a.astype(np.int64)) // np.maximum(np.abs(b.astype(np.int64)), 1)
    return (quotient * np.sign(a).astype(np.int64) * np.sign(b)).astype(a.dtype)


def _mod(attrs: Attrs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.fmod(a, b) if attrs["fmod"] else np.mod(a, b)


def _is_inf(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    above = np.isposinf(x) & bool(attrs["detect_positive"])
    return above | (np.isneginf(x) & bool(attrs["detect_negative"]))


def _cast(attrs: Attrs, x: np.ndarray) -> np.ndarray:
    return x.astype(attrs["to"])


def _where(attrs: Attrs, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(condition, a, b)


OPERATORS: dict[str, Operator] = {
    **{op: _unary(function) for op, function in _UNARY.items()},
    **{op: _binary(function) for op, function in _BINARY.items()},
    **{op: _to_bool(function) for op, function in _TO_BOOL.items()},
    "Cast": _cast,
    "Div": _div,
    "IsInf": _is_inf,
    "IsNaN": lambda attrs, x: np.isnan(x),
    "Mod": _mod,
    "Where": _where,
}
