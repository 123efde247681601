"""Single layers: lowgemm beside FBGEMM and oneDNN, each called from a loop without Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from benchmarks.layers import Layer
from lowgemm import reference
from lowgemm.bench.compare import Contestant, Work, compare, distance
from lowgemm.bench.host import Setting
from lowgemm.bench.record import LOWGEMM, Row
from lowgemm.errors import BenchError
from lowgemm.targets import peak

GEMM_PEERS = ("fbgemm", "onednn-torch", "onednn")
PEERS = (*GEMM_PEERS, "torch-float")
# Engines round the same sum with scales that differ in the last bits of float32: at a tie by one
# step, in far fewer than a thousandth of the outputs. A wrong kernel is off everywhere.
_MOST_STEPS = 1
_MOST_TIES = 1e-3


def measure(layer: Layer, against: Sequence[str], setting: Setting) -> Row:
    """One row."""
    expected = expected_codes(layer)
    makers = {name: partial(_make, name, layer, setting.threads) for name in (LOWGEMM, *against)}
    work = Work(
        name=layer.name,
        shape=layer.shape,
        dtype="u8s8",
        macs=layer.macs,
        moved=layer.moved,
        weight_bytes=layer.weight_bytes,
        read_rate=_read_rate(layer, setting),
    )

    def check(name: str, found: np.ndarray) -> tuple[float, bool]:
        return distance(found, expected), right(found, expected)

    return compare(work, makers, check, setting)


def _make(name: str, layer: Layer, threads: int) -> Contestant:
    """A contestant; what it needs is imported here, since none of it is always installed."""
    from benchmarks import lowgemm_layer, onednn_engine

    if name == LOWGEMM:
        compiled = layer.is_gemm or (layer.rank == 2 and not layer.transposed)
        make: Callable[[Layer, int], Contestant] = (
            lowgemm_layer.LowgemmLayer if compiled else lowgemm_layer.LowgemmOperator
        )
        return make(layer, threads)
    if name == "onednn":
        return onednn_engine.OneDnnLayer(layer, threads)
    try:
        from benchmarks import torch_engines
    except ModuleNotFoundError as error:
        raise BenchError(f"{error.name} is not installed") from error
    if name == "torch-float":
        return torch_engines.TorchFloatLayer(layer, threads)
    return torch_engines.TorchLayer(layer, name, threads)


def _read_rate(layer: Layer, setting: Setting) -> float | None:
    """A plain read of as many bytes as the weights have, for products that are bound by it."""
    own = setting.caches.get("L2", 0)
    if not layer.is_gemm or layer.weight_bytes <= own * setting.threads:
        return None
    if setting.state == "flushed":
        return setting.peaks["read_gb_per_s"]["memory"]
    return peak.measure_read_rate(layer.weight_bytes, setting.threads)


def expected_codes(layer: Layer) -> np.ndarray:
    """The right result, uint8, in ONNX's order of axes."""
    data = layer.data
    if layer.is_gemm:
        acc = (data.x.astype(np.float64) - data.x_zero_point) @ data.weight.T.astype(np.float64)
        return reference.requantize(
            acc.astype(np.int32) + data.bias, data.multiplier, data.out_zero_point
        )
    acc = reference.conv_i32(
        data.x,
        layer.stored_weight(data.weight),
        data.x_zero_point,
        strides=layer.strides,
        pads=layer.pads,
        dilations=layer.dilations,
        group=layer.groups,
        layout=("NCW", "NCHW", "NCDHW")[layer.rank - 1],
        transposed=layer.transposed,
        output_padding=layer.output_pad if layer.transposed else None,
    )
    by_channel = (-1, *[1] * layer.rank)
    return reference.requantize(
        acc + data.bias.reshape(by_channel),
        data.multiplier.reshape(by_channel),
        data.out_zero_point,
    )


def right(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether codes are the expected ones but for ties."""
    steps = np.abs(found.astype(np.int16) - expected)
    return bool(steps.max() <= _MOST_STEPS and np.mean(steps > 0) <= _MOST_TIES)
