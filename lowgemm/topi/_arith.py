"""Scalar expressions that several operators share."""

from tvm import tirx


def f32(value: float):
    """A float32 constant."""
    return tirx.const(value, "float32")


# Adding 1.5 * 2^23 to |x| < 2^22 leaves no fraction bits: the float32 addition itself rounds to the nearest integer, ties
# to even, and the sum's bit pattern is that of the constant plus the integer.
_TO_INTEGER = 12582912.0
_TO_INTEGER_BITS = 0x4B400000


def round_clamped(value, low, high):
    """rint(value), ties to even, clamped to the integers `low` and `high` (|low|, |high| < 2^22), as float32.

    Clamping first gives the same, since rounding is monotone and keeps integers; it also bounds the value for the
    rounding. (TVM takes vectors of calls to nearbyint apart.)
    """
    return _shifted(value, low, high) - f32(_TO_INTEGER)


def round_clamped_int(value, low, high):
    """`round_clamped` as int32."""
    bits = tirx.reinterpret("int32", _shifted(value, low, high))
    return bits - tirx.const(_TO_INTEGER_BITS, "int32")


def _shifted(value, low, high):
    # NaN compares false, which takes the second operand of the maximum: the least code, as `quant` has it.
    # An FMA by 1, because TVM would cancel a constant that is added and subtracted; LLVM makes an addition of it.
    return _fma(tirx.min(tirx.max(value, low), high), f32(1.0), f32(_TO_INTEGER))


def product(a, b):
    """a * b as the float32 it rounds to, for use in a sum.

    LLVM contracts the product and the sum into one FMA otherwise, which rounds once where the definition rounds twice.
    An FMA with +0 cannot be contracted further, and only turns -0 into +0.
    """
    return _fma(a, b, f32(0.0))


def _fma(a, b, c):
    return tirx.call_intrin("float32", "tirx.fma", a, b, c)


def word_of(elements: list):
    """The 32-bit word of int32 `elements`, in the order that `word_element` takes them apart."""
    width = 32 // len(elements)
    mask = tirx.const((1 << width) - 1, "int32")
    word = elements[0] & mask
    for index, element in enumerate(elements[1:], 1):
        part = element & mask if index < len(elements) - 1 else element
        word = word | (part << (width * index))
    return word
