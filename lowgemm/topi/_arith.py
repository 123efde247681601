"""Scalar expressions that several operators share."""

import numpy as np
from tvm import tirx


def f32(value: float):
    """A float32 constant."""
    return tirx.const(value, "float32")


# Adding 1.5 * 2^23 to |x| < 2^22 leaves no fraction bits: the float32 addition itself rounds to the nearest integer, ties
# to even, and the sum's bit pattern is that of the constant plus the integer.
_TO_INTEGER = 12582912.0
_TO_INTEGER_BITS = 0x4B400000


def round_clamped(value, low, high):
    """rint(value), ties to even, clamped to the integers `low` and `high` (|low|, |high| < 2^22), as int32.

    Clamping first gives the same, since rounding is monotone and keeps integers; it also bounds the value for the
    rounding, and stands between the product and the sum, which LLVM would otherwise contract into one FMA. (TVM takes
    vectors of calls to nearbyint apart, and cancels a constant added and subtracted in float32; bits it leaves alone.)
    """
    bounded = tirx.max(tirx.min(value, high), low)
    return tirx.reinterpret("int32", bounded + f32(_TO_INTEGER)) - tirx.const(
        _TO_INTEGER_BITS, "int32"
    )


def rounded(value):
    """`value` as the float32 it rounds to: keeps LLVM from contracting a product and a sum into one FMA, which would
    round once where the definition rounds twice, and differ between levels.

    The maximum changes no finite value, and LLVM cannot know that there is no other. (llvm.arithmetic.fence says the same
    at no cost, but TVM does not vectorize calls of LLVM intrinsics.)
    """
    return tirx.max(value, f32(float(np.finfo(np.float32).min)))


def word_of(elements: list):
    """The 32-bit word of int32 `elements`, in the order that `word_element` takes them apart."""
    width = 32 // len(elements)
    mask = tirx.const((1 << width) - 1, "int32")
    word = elements[0] & mask
    for index, element in enumerate(elements[1:], 1):
        part = element & mask if index < len(elements) - 1 else element
        word = word | (part << (width * index))
    return word
