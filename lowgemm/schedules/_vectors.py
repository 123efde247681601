"""Loops over sizes that are known at run time only, in whole vectors.

A loop of symbolic size cannot be split and vectorized by schedule steps: what does not fill a vector would need a
guard, and a guarded loop is never left to LLVM. Here the last vector overlaps the one before it instead, and computes
some elements twice. So outputs must not share memory with inputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as build

# How many elements one thread takes at least: some microseconds of work.
GRAIN = 16384


@contextmanager
def function() -> Iterator[Callable[[], tvm.tirx.PrimFunc]]:
    """Build a function: `with function() as made:` its arguments and body; then `made()` gives it."""
    with IRBuilder() as builder, build.prim_func(s_tir=True):
        build.func_name("main")
        build.func_attr({"tirx.noalias": True})
        yield builder.get


def size(name: str) -> tirx.Var:
    """A size that the caller's arrays tell."""
    return tirx.Var(name, "int64")


def buffer_argument(name: str, shape: tuple, dtype: str):
    """The next argument, an array."""
    return build.arg(name, build.buffer(shape, dtype))


def scalar_argument(name: str, dtype: str):
    """The next argument, a number."""
    return build.arg(name, tirx.Var(name, dtype))


def register(lanes: int, dtype: str):
    """A vector, or a number if `lanes` is 1, that keeps its value from one iteration to the next.

    It is in scope "global", which TVM puts on the stack and LLVM then into registers. In scope "local", in a parallel
    loop, it would be allocated by the runtime and written back each time.
    """
    return build.alloc_buffer((lanes,), dtype, scope="global")


def when(condition, body: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
    """If `condition`, then `body`, else `otherwise`."""
    with build.If(condition):
        with build.Then():
            body()
        if otherwise:
            with build.Else():
                otherwise()


def vectors(
    begin, count, whole, width: int, body: Callable[[tirx.Expr, int], None], least: int = 1
) -> None:
    """Call `body(start, lanes)` for vectors that cover `[begin, begin + count)`, a part of an axis `[0, whole)`.

    The last one begins early enough to end there. If even `whole` is less than a vector, `body` gets `least` elements
    at a time, which divides `count`.
    """

    def wide() -> None:
        with build.serial(count // width) as v:
            body(begin + v * width, width)
        when(count % width != 0, lambda: body(begin + count - width, width))

    def narrow() -> None:
        with build.serial(count // least) as v:
            body(begin + v * least, least)

    when(whole >= width, wide, narrow)


def load(buffer, at: list, lanes: int):
    """`lanes` elements of the last axis of `buffer`, from `at` on."""
    return tirx.BufferLoad(buffer, _region(at, lanes))


def store(buffer, value, at: list, lanes: int) -> None:
    """Write `lanes` elements along the last axis of `buffer`, from `at` on."""
    build.buffer_store(buffer, value, _region(at, lanes))


def _region(at: list, lanes: int) -> list:
    if lanes == 1:
        return at
    first = at[-1]
    step = 1 if isinstance(first, int) else tirx.const(1, first.ty.dtype)
    return [*at[:-1], tirx.Ramp(first, step, lanes)]


def fold(value, lanes: int, combine: Callable):
    """`combine` of all lanes of `value`: halves, quarters and so on."""
    while lanes > 1:
        lanes //= 2
        halves = [list(range(lanes)), list(range(lanes, 2 * lanes))] if lanes > 1 else [[0], [1]]
        value = combine(*(tirx.Shuffle([value], half) for half in halves))
    return value
