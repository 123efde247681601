"""Products of 64-bit integers modulo 2^64.

TVM tells LLVM that its additions and multiplications do not overflow, but these do. So they are functions in LLVM's
language, which are inlined.

AVX-512 DQ multiplies 64 bits (vpmullq). AVX2 multiplies 32: with a = 2^32 a1 + a0, b = 2^32 b1 + b0

    a * b = a0 * b0 + 2^32 (a1 * b0 + a0 * b1)     modulo 2^64

vpmuludq gives the first product, vpmulld the others modulo 2^32 at once, if a's halves are swapped. Each is summed for
itself, and the sums are put together at the end.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from tvm.script.ir_builder import tirx as T

_WHOLE = """
define internal <{n} x i64> @lowgemm_i64(<{n} x i64> %acc, <{n} x i64> %a, <{n} x i64> %b) alwaysinline {{
  %product = mul <{n} x i64> %a, %b
  %sum = add <{n} x i64> %acc, %product
  ret <{n} x i64> %sum
}}
"""
_HALVES = """
define internal <{n} x i64> @lowgemm_i64_low(<{n} x i64> %acc, <{n} x i64> %a, <{n} x i64> %b) alwaysinline {{
  %x = and <{n} x i64> %a, splat (i64 4294967295)
  %y = and <{n} x i64> %b, splat (i64 4294967295)
  %product = mul <{n} x i64> %x, %y
  %sum = add <{n} x i64> %acc, %product
  ret <{n} x i64> %sum
}}
define internal <{n} x i64> @lowgemm_i64_cross(<{n} x i64> %acc, <{n} x i64> %a, <{n} x i64> %b) alwaysinline {{
  %halves = bitcast <{n} x i64> %a to <{h} x i32>
  %x = shufflevector <{h} x i32> %halves, <{h} x i32> poison, <{h} x i32> <{swap}>
  %y = bitcast <{n} x i64> %b to <{h} x i32>
  %old = bitcast <{n} x i64> %acc to <{h} x i32>
  %product = mul <{h} x i32> %x, %y
  %sum = add <{h} x i32> %old, %product
  %result = bitcast <{h} x i32> %sum to <{n} x i64>
  ret <{n} x i64> %result
}}
define internal <{n} x i64> @lowgemm_i64_join(<{n} x i64> %low, <{n} x i64> %cross) alwaysinline {{
  %halves = bitcast <{n} x i64> %cross to <{h} x i32>
  %swapped = shufflevector <{h} x i32> %halves, <{h} x i32> poison, <{h} x i32> <{swap}>
  %both = add <{h} x i32> %halves, %swapped
  %wide = bitcast <{h} x i32> %both to <{n} x i64>
  %high = shl <{n} x i64> %wide, splat (i64 32)
  %sum = add <{n} x i64> %low, %high
  ret <{n} x i64> %sum
}}
"""


@contextlib.contextmanager
def defining_int64(lanes: int) -> Iterator[None]:
    """What TVM's builder emits inside may use the functions below, on vectors of so many lanes."""
    swap = ", ".join(f"i32 {i ^ 1}" for i in range(2 * lanes))
    code = (_WHOLE + _HALVES).format(n=lanes, h=2 * lanes, swap=swap)
    with T.attr(T.int32(0), "pragma_import_llvm", code):
        yield


def int64_product(acc, a, b, lanes: int) -> Any:
    """acc + a * b."""
    return _call("lowgemm_i64", lanes, acc, a, b)


def int64_low_product(acc, a, b, lanes: int) -> Any:
    """acc plus the product of the lower halves."""
    return _call("lowgemm_i64_low", lanes, acc, a, b)


def int64_cross_products(acc, a, b, lanes: int) -> Any:
    """The two halves of acc, each plus the product of a half of a with the other one of b, modulo 2^32."""
    return _call("lowgemm_i64_cross", lanes, acc, a, b)


def int64_join(low, cross, lanes: int) -> Any:
    """low + 2^32 times both halves of cross."""
    return _call("lowgemm_i64_join", lanes, low, cross)


def _call(name: str, lanes: int, *args) -> Any:
    return T.call_extern(f"int64x{lanes}", name, *args)
