"""float32 and the narrow float types, one from another, on scalars and vectors."""

from tvm import tirx

from lowgemm.topi._arith import f32, like, to_float

FLOATS = ("float32", "float16", "bfloat16")
_FLOAT16_MAX = 65504.0


def stored(dtype: str) -> str:
    """The dtype of a buffer of `dtype`: bfloat16 is held as uint16."""
    return "uint16" if dtype == "bfloat16" else dtype


def widened(value, dtype: str):
    """`value`, an element of a buffer of `dtype`, as float32: exact."""
    if dtype == "bfloat16":
        return tirx.reinterpret(like("float32", value), value.astype(like("uint32", value)) << 16)
    return to_float(value) if dtype == "float16" else value


def narrowed(value, dtype: str, half_up: bool = False, clip: bool = False):
    """float32 `value` as an element of a buffer of `dtype`, to nearest: `quant.to_bfloat16`, `quant.to_float16`.

    Ties go to even or, in bfloat16 with `half_up`, away from zero as FBGEMM's reference has it. With `clip` float16
    gives its largest number where it would give infinity.
    """
    if dtype == "bfloat16":
        return _to_bfloat16(value, half_up)
    if dtype == "float16":
        if clip:
            # The value is the second operand where it is NaN, so that it stays one.
            value = tirx.min(f32(_FLOAT16_MAX), tirx.max(f32(-_FLOAT16_MAX), value))
        return value.astype(like("float16", value))
    return value


def _to_bfloat16(value, half_up: bool):
    kind = like("uint32", value)
    bits = tirx.reinterpret(kind, value)
    if half_up:
        return ((bits + _u32(0x8000)) >> _u32(16)).astype(like("uint16", value))
    upper = bits >> _u32(16)
    rounded = (bits + (_u32(0x7FFF) + (upper & _u32(1)))) >> _u32(16)
    chosen = tirx.Select(is_nan(value), upper | _u32(0x40), rounded)
    return chosen.astype(like("uint16", value))


def is_nan(value):
    """Whether float32 `value` is a NaN, by its bits: TVM takes a value for equal to itself."""
    bits = tirx.reinterpret(like("int32", value), value)
    return (bits & tirx.const(0x7FFFFFFF, "int32")) > tirx.const(0x7F800000, "int32")


def _u32(value: int):
    return tirx.const(value, "uint32")
