"""PyTorch's float products and embedding bags, timed by a loop in C++."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.torch_engines import loops


class TorchProduct:
    """A product with float32 activations, by FBGEMM with float16 weights packed beforehand, or in float32."""

    def __init__(self, a: np.ndarray, weights: np.ndarray, engine: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._a = torch.from_numpy(a)
        weight = torch.from_numpy(np.ascontiguousarray(weights.T))
        ops: Any = torch.ops.quantized
        if engine == "fbgemm-fp16":
            torch.backends.quantized.engine = "fbgemm"
            self._weight = ops.linear_prepack_fp16(weight)
            self._apply: Any = ops.linear_dynamic_fp16
            self._time: Any = loops().time_linear_fp16
        else:
            self._weight = weight
            self._apply = torch.nn.functional.linear
            self._time = loops().time_linear_float

    def output(self) -> np.ndarray:
        """float32 `(rows, columns)`."""
        return self._apply(self._a, self._weight).numpy()

    def __call__(self, runs: int) -> list[float]:
        return self._time(self._a, self._weight, runs).tolist()

    def close(self) -> None:
        """Tensors go with their last reference."""


class TorchBags:
    """Sums of rows of codes, by FBGEMM."""

    def __init__(
        self,
        table: np.ndarray,
        indices: np.ndarray,
        offsets: np.ndarray,
        weights: np.ndarray | None,
        bits: int,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        given = None if weights is None else torch.from_numpy(weights)
        self._arguments = (*map(torch.from_numpy, (table, indices, offsets)), given, bits)

    def output(self) -> np.ndarray:
        """float32 `(bags, columns)`."""
        table, indices, offsets, weights, bits = self._arguments
        ops: Any = torch.ops.quantized
        name = "byte" if bits == 8 else f"{bits}bit"
        apply = getattr(ops, f"embedding_bag_{name}_rowwise_offsets")
        options = {"per_sample_weights": weights, "include_last_offset": True}
        return apply(table, indices, offsets, **options).numpy()

    def __call__(self, runs: int) -> list[float]:
        return loops().time_embedding_bag(*self._arguments, runs).tolist()

    def close(self) -> None:
        """Tensors go with their last reference."""
