"""Quantization operators, and products of matrices."""

import numpy as np

from lowgemm.quant import dequantize_linear, quantize_linear
from lowgemm.reference._table import Attrs, Operator, rounded, to_double


def _quantize(attrs: Attrs, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    return quantize_linear(x, scale, zero, zero.dtype, attrs.get("axis"))


def _dequantize(attrs: Attrs, q: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    return dequantize_linear(q, scale, zero, attrs.get("axis"))


def _dynamic(attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ONNX's rule: the range holds 0, the scale is float32(max - min) / 255."""
    low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
    scale = np.float32((high - low) / np.float32(255))
    divisor = np.asarray(scale if scale else 1, np.float32)
    zero = np.asarray(np.clip(np.rint(-low / divisor), 0, 255), np.uint8)
    return quantize_linear(x, divisor, zero), np.asarray(scale), zero


def _matmul(attrs: Attrs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rounded(np.matmul(to_double(a), to_double(b)), a)


def _gemm(attrs: Attrs, a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    product = np.matmul(to_double(a), to_double(b))
    return rounded(product if bias is None else product + to_double(bias), a)


OPERATORS: dict[str, Operator] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "QuantizeLinear": _quantize,
}
