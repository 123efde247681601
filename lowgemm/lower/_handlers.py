"""Which function emits the kernel calls of which operator that has kernels of its own."""

from collections.abc import Callable

from lowgemm.graph import Node
from lowgemm.lower import _convolutions, _elementwise, _moves, _windows
from lowgemm.lower._context import Context

HANDLERS: dict[str, Callable[[Context, Node], None]] = {
    "QConv": _convolutions.conv,
    "QLut": _elementwise.lut,
    "QAdd": _elementwise.add,
    "QMul": _elementwise.mul,
    "QAveragePool": _windows.pool,
    "QMaxPool": _windows.pool,
    "QConcat": _moves.concat,
    "QResize": _windows.resize,
    "QMove": _moves.move,
    "Quantize": _elementwise.quantize,
    "Dequantize": _elementwise.dequantize,
    "Resample": _windows.resample,
    "RowSoftmax": _windows.softmax,
}
