"""Products of bfloat16 pairs, accumulated in float32 (AVX-512 BF16).

TVM turns every bfloat16 into an integer or a float32, so that it cannot call LLVM's intrinsic by itself. The function
here is in LLVM's language instead, takes pairs as 32-bit words, and is inlined.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from tvm.script.ir_builder import tirx as T

_NAME = "lowgemm_dpbf16ps_{lanes}"
_CODE = """
define internal <{lanes} x float> @{name}(
    <{lanes} x float> %acc, <{lanes} x i32> %a, <{lanes} x i32> %b) alwaysinline {{
  %lhs = bitcast <{lanes} x i32> %a to <{pairs} x bfloat>
  %rhs = bitcast <{lanes} x i32> %b to <{pairs} x bfloat>
  %sum = call <{lanes} x float> @{instruction}(<{lanes} x float> %acc, <{pairs} x bfloat> %lhs, <{pairs} x bfloat> %rhs)
  ret <{lanes} x float> %sum
}}
declare <{lanes} x float> @{instruction}(<{lanes} x float>, <{pairs} x bfloat>, <{pairs} x bfloat>)
"""


@contextlib.contextmanager
def defining_bfloat16_dot(lanes: int) -> Iterator[None]:
    """What TVM's builder emits inside may use `bfloat16_dot` of so many lanes."""
    code = _CODE.format(
        lanes=lanes,
        pairs=2 * lanes,
        name=_NAME.format(lanes=lanes),
        instruction=f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}",
    )
    with T.attr(T.int32(0), "pragma_import_llvm", code):
        yield


def bfloat16_dot(acc, lhs, rhs, lanes: int) -> Any:
    """acc + lhs.high * rhs.high + lhs.low * rhs.low in each of `lanes` float32 lanes (vdpbf16ps).

    `lhs` and `rhs` are vectors of 32-bit words that hold two bfloat16 each. The instruction rounds to nearest, ties to
    even, and takes and gives zero for numbers below 2^-126.
    """
    return T.call_extern(f"float32x{lanes}", _NAME.format(lanes=lanes), acc, lhs, rhs)
