"""Arguments of operators: numpy arrays, or whatever lends its memory by DLPack, checked."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from lowgemm import targets
from lowgemm.errors import InputError, TargetError
from lowgemm.targets import CpuTarget

_CACHE_LINE = 64
# Sizes and positions in kernels are 32-bit integers.
_MOST_ELEMENTS = 2**31 - 1


class OperandError(InputError):
    """An operator was given an argument of another dtype, shape or layout than it takes, or a value without meaning."""


def array(value: Any, name: str, most: float = _MOST_ELEMENTS) -> np.ndarray:
    """`value` as a numpy array over the same memory, of at most `most` elements.

    Raises:
        OperandError: it is no array on the CPU, too large, of foreign byte order, or not aligned to its elements.
    """
    if not isinstance(value, np.ndarray):
        if not hasattr(value, "__dlpack__"):
            raise OperandError(f"{name}: expected an array, got {type(value).__name__}")
        try:
            value = np.from_dlpack(value)
        except Exception as error:
            raise OperandError(f"{name}: its memory cannot be shared: {error}") from error
    if value.size > most:
        raise OperandError(f"{name}: expected at most {most} elements, got {value.size}")
    if value.size and not value.flags.c_contiguous:
        steps = zip(value.shape, value.strides, strict=True)
        span = sum((size - 1) * abs(stride) for size, stride in steps) // value.itemsize
        if span >= most:
            raise OperandError(
                f"{name}: expected elements within {most} of each other, got strides {value.strides}"
            )
    if not value.dtype.isnative:
        raise OperandError(f"{name}: expected this machine's byte order, got {value.dtype.str}")
    if not value.flags.aligned:
        raise OperandError(f"{name}: expected memory aligned to its {value.itemsize}-byte elements")
    return value


@functools.lru_cache(64)
def _name(dtype: np.dtype) -> str:
    """`dtype.name`, which takes numpy some microseconds."""
    return dtype.name


def expect(
    value: np.ndarray,
    name: str,
    dtypes: str | Sequence[str],
    shape: Sequence[int | str | None] | None = None,
) -> np.ndarray:
    """`value` if it has one of `dtypes` and the shape; a string in `shape` names a size that is free.

    Raises:
        OperandError: naming the argument, what was expected and what came.
    """
    allowed = (dtypes,) if isinstance(dtypes, str) else tuple(dtypes)
    fits = _name(value.dtype) in allowed
    if shape is not None:
        fits = fits and value.ndim == len(shape)
        fits = fits and all(
            not isinstance(want, int) or want == have
            for want, have in zip(shape, value.shape, strict=True)
        )
    if not fits:
        kinds = " or ".join(allowed)
        wanted = "" if shape is None else f" of shape ({', '.join(map(str, shape))})"
        raise OperandError(
            f"{name}: expected {kinds}{wanted}, got {value.dtype.name} of shape {value.shape}"
        )
    return value


def contiguous(value: np.ndarray, name: str) -> np.ndarray:
    """`value` if its elements lie one after the other.

    Raises:
        OperandError: they do not.
    """
    if not value.flags.c_contiguous:
        raise OperandError(f"{name}: expected a C-contiguous array, got strides {value.strides}")
    return value


def aligned(values: np.ndarray) -> np.ndarray:
    """A contiguous copy that begins at a cache line, as kernels read weights fastest."""
    memory = np.empty(values.nbytes + _CACHE_LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % _CACHE_LINE
    found = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def one_of(name: str, value: Any, allowed: Sequence) -> None:
    """Refuse a `value` that is not `allowed`: strings, ints and None, and nothing that only equals them.

    Raises:
        OperandError: it is not.
    """
    plain = value is None or isinstance(value, str | int)
    if not plain or value not in allowed:
        text = value if isinstance(value, str) else repr(value)
        raise OperandError(f"{name}: expected one of {', '.join(map(str, allowed))}, got {text}")


def instance(name: str, value: Any, kind: type) -> None:
    """Refuse a `value` that is neither None nor a `kind`.

    Raises:
        OperandError: it is not.
    """
    if value is not None and not isinstance(value, kind):
        raise OperandError(f"{name}: expected {kind.__name__}, got {value!r}")


def apart(out: np.ndarray, *inputs: np.ndarray) -> None:
    """Refuse an `out` that shares memory with an input.

    Raises:
        OperandError: it does.
    """
    if any(np.may_share_memory(out, each) for each in inputs):
        raise OperandError("out: expected memory apart from the inputs")


def numbers(value: Any, name: str) -> np.ndarray:
    """Real numbers as float32; infinite, if they are too large.

    Raises:
        OperandError: they are of another kind.
    """
    if type(value) is np.ndarray and value.dtype == np.float32:
        return value
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise OperandError(f"{name}: expected real numbers, got {value!r}") from None


def positive_scale(value: Any, name: str) -> np.ndarray:
    """Scales as float32, each finite and above zero.

    Raises:
        OperandError: one is zero, negative, infinite or NaN, or there is none.
    """
    scale = numbers(value, name)
    if not scale.size:
        raise OperandError(f"{name}: expected at least one scale")
    if not (np.isfinite(scale) & (scale > 0)).all():
        bad = scale[~(np.isfinite(scale) & (scale > 0))].flat[0]
        raise OperandError(f"{name}: expected finite scales above zero, got {bad}")
    return scale


def one_scale(value: Any, name: str) -> np.float32:
    """One scale, as `positive_scale` has it.

    Raises:
        OperandError: it is zero, negative, infinite or NaN, or there are several.
    """
    if np.ndim(value):
        raise OperandError(f"{name}: expected one scale, got shape {np.shape(value)}")
    return np.float32(positive_scale(value, name))


def integer(value: Any, name: str, low: int, high: int | None = None) -> int:
    """`value`, an integer of Python or numpy, from `low` to `high`.

    Raises:
        OperandError: it is another.
    """
    wanted = f"an integer from {low}" + ("" if high is None else f" to {high}")
    try:
        number = operator.index(value)
    except TypeError:
        raise OperandError(f"{name}: expected {wanted}, got {value!r}") from None
    if number < low or (high is not None and number > high):
        raise OperandError(f"{name}: expected {wanted}, got {number}")
    return number


def level(target: str | CpuTarget) -> CpuTarget:
    """The target that an operator compiles for: "host" (or what LOWGEMM_ISA names), or one named level.

    Raises:
        TargetError: there is no such level, this CPU lacks what it needs, or the operating system does not permit it.
    """
    if not isinstance(target, str | CpuTarget):
        raise TargetError(f"target: expected a level's name, got {target!r}")
    found, *others = [target] if isinstance(target, CpuTarget) else targets.parse(target)
    if others:
        raise TargetError(f'target: expected one level, got "{target}"')
    missing = found.missing(targets.host_features())
    if missing and not isinstance(target, CpuTarget):
        raise TargetError(f"target {found.level}: this CPU lacks {', '.join(missing)}")
    if found.tiles and not missing:
        targets.permit_tiles()
    return found
