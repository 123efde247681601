"""Whole small models, written step by step: read, fused, lowered and run, they equal the reference."""

from typing import Any

import numpy as np
import onnx

from lowgemm.frontend import load_onnx
from lowgemm.graph import Graph
from lowgemm.passes import fuse_quantized
from lowgemm.reference import run_graph

import kernels
import onnx_models

# Fusion and layouts do not depend on the level, and every host has this one.
LEVEL = "avx2"


class Model:
    """A model of quantized inputs; every step returns the name of its result.

    Scales should be powers of two: then float32 holds every sum and product, and results compare with ==.
    """

    def __init__(self, **inputs: np.ndarray) -> None:
        self.inputs = inputs
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}

    def constant(self, value: Any, dtype: Any = None) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = np.asarray(value, dtype)
        return name

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(onnx_models.node(op, " ".join(inputs), name, **attrs))
        return name

    def dequantize(self, x: str, scale: float = 1.0, point: int = 0, dtype: str = "uint8") -> str:
        """Float values of the codes `x`."""
        parameters = self.constant(scale, np.float32), self.constant(point, dtype)
        return self.op("DequantizeLinear", x, *parameters)

    def weight(self, codes: np.ndarray, scale: float = 1.0) -> str:
        """Float values of constant int8 codes."""
        return self.dequantize(self.constant(codes, np.int8), scale, 0, "int8")

    def quantize(self, x: str, scale: float = 1.0, point: int = 0, dtype: str = "uint8") -> str:
        """Codes of the float values `x`."""
        parameters = self.constant(scale, np.float32), self.constant(point, dtype)
        return self.op("QuantizeLinear", x, *parameters)

    def graph(self, *outputs: str) -> Graph:
        """What the frontend makes of the model that returns `outputs`."""
        proto = onnx_models.model(self._nodes, self.inputs, " ".join(outputs), self._constants)
        return load_onnx(proto)

    def fused(self, *outputs: str) -> Graph:
        return fuse_quantized(self.graph(*outputs))

    def check(self, *outputs: str) -> None:
        """The compiled model's outputs equal the reference's."""
        graph = self.graph(*outputs)
        want = run_graph(graph, self.inputs)
        got = kernels.run(fuse_quantized(graph.copy()), LEVEL, self.inputs)
        for name, expected, found in zip(outputs, want.values(), got.values(), strict=True):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
            assert np.array_equal(found, expected, equal_nan=True), name


def codes(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Every value of an integer type, equally likely."""
    return kernels.full_range(np.random.default_rng([seed, *shape]), shape, dtype)
