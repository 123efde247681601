"""Scalar expressions that several operators share."""

from tvm import tirx


def f32(value: float):
    """A float32 constant."""
    return tirx.const(value, "float32")


def quantized(value, dtype: str):
    """A float32 that holds an integer of `dtype`'s range, as that dtype. Goes through int32, which vectorizes."""
    return value.astype("int32").astype(dtype)


def saturate(value, low: float, high: float):
    """`value` clamped to `[low, high]`."""
    return tirx.max(tirx.min(value, f32(high)), f32(low))


def rounded(value):
    """`value` as the float32 it rounds to: keeps LLVM from contracting a product and a sum into one FMA, which would
    round once where the definition rounds twice, and differ between levels."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", value)
