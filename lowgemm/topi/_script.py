"""Functions in TVMScript, parsed without a look at who is calling."""

from collections.abc import Callable
from typing import Any

from tvm.script.parser._core import parse, utils


def prim_func(*, s_tir: bool) -> Callable[[Callable[..., None]], Any]:
    """`T.prim_func(s_tir=True)` for functions that are not in classes, whose annotations are no strings.

    TVM's decorator reads the source of all callers, twice, to find out whether that is so. It takes 40 ms each time,
    and for a matrix product that was a fifth of what compiling takes.
    """
    del s_tir  # the parser reads it from the source, where the decorator has to be called as `module.prim_func(...)`

    def parsed(func: Callable[..., None]) -> Any:
        return parse(func, utils.inspect_function_capture(func))

    parsed.dispatch_token = "tirx"  # pyright: ignore[reportFunctionMemberAccess]
    return parsed
