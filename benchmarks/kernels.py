"""Single layers: lowgemm beside FBGEMM and oneDNN, each called from a loop without Python."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from benchmarks.layers import Layer
from benchmarks.lowgemm_layer import LowgemmLayer
from benchmarks.record import LOWGEMM, Row, reason
from benchmarks.timing import Contestant, interleaved
from benchmarks.torch_engines import TorchLayer
from lowgemm import reference

# Engines round the same sum with scales that differ in the last bits of float32: at a tie by one
# step, in far fewer than a thousandth of the outputs. A wrong kernel is off everywhere.
_MOST_STEPS = 1
_MOST_TIES = 1e-3


def rows(
    layers: Iterable[Layer],
    threads: int,
    against: Sequence[str],
    peak_gops: float,
    seconds: float,
    state: str,
    before_run: Callable[[], object] | None,
) -> Iterator[Row]:
    """Time each layer in lowgemm and in the engines named."""
    for layer in layers:
        expected = _reference(layer)
        failures: dict[str, str] = {}
        errors: dict[str, float] = {}
        contestants: dict[str, Contestant] = {}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lowgemm-bench-")))
            start = time.perf_counter()
            compile_seconds = None
            for name in (LOWGEMM, *against):
                try:
                    if name == LOWGEMM:
                        contestant = LowgemmLayer(layer, folder, threads)
                        stack.enter_context(closing(contestant))
                        compile_seconds = time.perf_counter() - start
                    else:
                        contestant = TorchLayer(layer, name, threads)
                    found = contestant.output()
                except Exception as error:  # anything: the others' numbers are still worth having
                    failures[name] = reason(error)
                    continue
                errors[name] = _distance(found, expected)
                if name == LOWGEMM and not _right(found, expected):
                    failures[name] = f"wrong result: {errors[name]:.1%} off the reference"
                else:  # peers stay: saturating is how some of them are fast
                    contestants[name] = contestant
            yield Row(
                name=layer.name,
                shape=layer.shape,
                dtype="u8s8",
                threads=threads,
                state=state,
                macs=layer.macs,
                peak_gops=peak_gops,
                times=interleaved(contestants, seconds, before_run),
                errors=errors,
                failures=failures,
                compile_seconds=compile_seconds,
            )


def _reference(layer: Layer) -> np.ndarray:
    data = layer.data
    x = data.x
    if layer.is_gemm:
        x = x.T.reshape(1, layer.in_channels, layer.height, layer.width)
    acc = reference.conv2d_i32(
        x,
        data.weight,
        data.x_zero_point,
        strides=(layer.stride, layer.stride),
        pads=(layer.pad, layer.pad, layer.pad, layer.pad),
        dilations=(layer.dilation, layer.dilation),
        group=layer.groups,
        layout="NCHW",
    )
    by_channel = (-1, 1, 1)
    multiplier = np.float64(np.float32(data.x_scale)) * data.scales / np.float32(data.out_scale)
    out = reference.requantize(
        acc + data.bias.reshape(by_channel), multiplier.reshape(by_channel), data.out_zero_point
    )
    return out[0, :, :, 0].T if layer.is_gemm else out


def _right(found: np.ndarray, expected: np.ndarray) -> bool:
    steps = np.abs(found.astype(np.int16) - expected)
    return bool(steps.max() <= _MOST_STEPS and np.mean(steps > 0) <= _MOST_TIES)


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the norm of the reference's codes."""
    difference = found.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))
