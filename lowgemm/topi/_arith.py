"""Scalar expressions that several operators share."""

import math

from tvm import te, tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id

from lowgemm.packing import word_type


def f32(value: float):
    """A float32 constant."""
    return tirx.const(value, "float32")


# Adding 1.5 * 2^23 to |x| < 2^22 leaves no fraction bits: the float32 addition itself rounds to the nearest integer,
# ties to even, and the sum's bit pattern is that of the constant plus the integer.
_TO_INTEGER = 12582912.0
_TO_INTEGER_BITS = 0x4B400000


def round_clamped(value, low, high, plus):
    """rint(value), ties to even, clamped to the integers `low` and `high` (|low|, |high| < 2^22), as float32, `plus` an
    integer.

    Clamping first gives the same, since rounding is monotone and keeps integers; it also bounds the value for the
    rounding. (TVM takes vectors of calls to nearbyint apart.)
    """
    return _shifted(value, low, high) - (f32(_TO_INTEGER) - plus)


def round_clamped_int(value, low, high):
    """`round_clamped` as int32, plus nothing."""
    bits = tirx.reinterpret(like("int32", value), _shifted(value, low, high))
    return bits - tirx.const(_TO_INTEGER_BITS, "int32")


def _shifted(value, low, high):
    # NaN compares false, which takes the second operand of the maximum: the least code, as `quant` has it.
    # An FMA by 1, because TVM would cancel a constant that is added and subtracted; LLVM makes an addition of it.
    return fma(tirx.min(tirx.max(value, low), high), f32(1.0), f32(_TO_INTEGER))


def fma(a, b, c):
    """a * b + c, rounded once."""
    lanes = like("float32", a)
    return tirx.call_intrin(lanes, "tirx.fma", a, *(_broadcast(v, lanes) for v in (b, c)))


def to_float(value):
    """`value` as float32, in as many lanes as it has."""
    return value.astype(like("float32", value))


def nearest(value):
    """The nearest integer to float32 `value`, ties to even, as int32: one instruction for a vector.

    Of a NaN, and outside of int32, the instruction gives -2^31. So the caller bounds the value above.
    """
    kind = tirx.const(llvm_lookup_intrinsic_id("llvm.lrint"), "uint32")
    return tirx.call_intrin(like("int32", value), "tirx.call_llvm_pure_intrin", kind, value)


def rounded(value):
    """float32 `value` rounded to the nearest integer, ties to even, as float32: one instruction for a vector."""
    kind = tirx.const(llvm_lookup_intrinsic_id("llvm.rint"), "uint32")
    return tirx.call_intrin(like("float32", value), "tirx.call_llvm_pure_intrin", kind, value)


def saturated(value, dtype: str):
    """int32 `value` as an 8-bit code, the nearest that there is: what packing instructions do by themselves."""
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    bounded = tirx.min(tirx.max(value, tirx.const(low, "int32")), tirx.const(high, "int32"))
    return bounded.astype(like(dtype, value))


def wrapping_sum(a, b, kind: str = "int32"):
    """a + b in the integers of `kind`, modulo 2^32 or 2^16.

    A sum in 32 bits has no meaning for LLVM once it overflows: TVM says that it does not, and what comes after, such as
    a sign extension, is moved in front of it. LLVM makes one addition in 32 bits of this, and no parentheses are taken
    off it.
    """
    return _wrapped(_wide(a) + _wide(b), kind)


def wrapping_difference(a, b, kind: str = "int32"):
    """a - b, as `wrapping_sum`."""
    return _wrapped(_wide(a) - _wide(b), kind)


def wrapping_product(a, factor: int):
    """a * factor, as `wrapping_sum`."""
    return _wrapped(_wide(a) * tirx.const(factor, "int64"), "int32")


def _wide(value):
    return value.astype(like("int64", value))


def _wrapped(wide, kind: str):
    return wide.astype(like(kind, wide))


def like(kind: str, value) -> str:
    """The dtype of `kind` with as many lanes as `value` (intrinsics compute on vectors, tensor expressions do not)."""
    # An element of a tensor in a tensor expression is no expression yet, and one element.
    count = 1 if isinstance(value, te.TensorSlice) else value.ty.dtype.lanes
    return kind if count == 1 else f"{kind}x{count}"


def _broadcast(value, dtype: str):
    """`value` in the lanes of `dtype`, where arithmetic does not broadcast by itself."""
    if "x" not in dtype or value.ty.dtype.lanes != 1:
        return value
    return tirx.Broadcast(value, int(dtype.partition("x")[2]))


# exp(r) for |r| <= log(2) / 2 is its Taylor series up to the seventh power: what is left out is 5e-9 of it.
_EXP_TERMS = tuple(1.0 / math.factorial(power) for power in range(7, -1, -1))
_LOG2_E = 1.0 / math.log(2)
# log(2) in two parts: products of the first with integers up to 2^10 are exact in float32.
_LOG_2_HIGH = 0.693359375
_LOG_2_LOW = math.log(2) - _LOG_2_HIGH
# Between them 2^k is a normal float32.
_EXP_LEAST, _EXP_MOST = -87.0, 88.0


def exponential(value):
    """exp of float32 `value`, in as many lanes as it has, within 2e-7 of it; below -87 that of -87, above 88 of 88.

    exp(x) = 2^k * exp(r) with k the integer nearest to x / log(2); 2^k is k in the place of the exponent's bits.
    """
    lanes = like("float32", value)

    def number(constant: float):
        return _broadcast(f32(constant), lanes)

    # NaN compares false, which takes the second operand: it stays NaN.
    bounded = tirx.min(number(_EXP_MOST), tirx.max(number(_EXP_LEAST), value))
    shifted = fma(bounded, number(_LOG2_E), f32(_TO_INTEGER))
    bits = tirx.reinterpret(like("int32", value), shifted)
    # An FMA by 1 for the reason that `_shifted` has.
    k = fma(shifted, number(1.0), f32(-_TO_INTEGER))
    r = fma(k, number(-_LOG_2_LOW), fma(k, number(-_LOG_2_HIGH), bounded))
    series = number(_EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        series = fma(series, r, number(term))
    return series * tirx.reinterpret(lanes, _power_of_two(bits))


def _power_of_two(bits):
    """The bits of 2^k from those of 1.5 * 2^23 + k: what lies above k's low byte is shifted out."""
    kind = like("int32", bits)
    biased = bits + _broadcast(tirx.const(127, "int32"), kind)
    return biased << _broadcast(tirx.const(23, "int32"), kind)


def word_of(elements: list, depth: int):
    """The word (`packing.word_type`) of `depth` bytes of which the first ones are `elements`, int32, and the rest 0."""
    word = elements[0]
    for index, element in enumerate(elements[1:], 1):
        word = word | (element << (8 * index))
    return word.astype(word_type(depth))
