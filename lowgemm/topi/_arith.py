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
