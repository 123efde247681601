"""How much memory a run takes: the weights, two neighbouring activations and hardly more."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import lowgemm

from onnx_models import model, node

_SIZE, _CHANNELS, _CONVOLUTIONS = 256, 64, 3
_ACTIVATION = _SIZE * _SIZE * _CHANNELS  # bytes: it is 8 bits deep
_WEIGHTS = _CHANNELS * 9 * (3 + _CHANNELS * (_CONVOLUTIONS - 1))
# What a run may take beside: code, stacks of threads, kernels' temporary rows.
_SLACK = 5 << 20


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of 3x3 convolutions that keep the size, then the average of each channel."""
    generator = np.random.default_rng(0)
    constants = {"s": np.float32(0.05), "z": np.uint8(0), "wz": np.int8(0)}
    nodes = [node("QuantizeLinear", "x s z", "q0"), node("DequantizeLinear", "q0 s z", "d0")]
    for i in range(_CONVOLUTIONS):
        shape = (_CHANNELS, _CHANNELS if i else 3, 3, 3)
        constants[f"w{i}"] = generator.integers(-127, 128, shape).astype(np.int8)
        nodes += [
            node("DequantizeLinear", f"w{i} s wz", f"f{i}"),
            node("Conv", f"d{i} f{i}", f"c{i}", pads=[1, 1, 1, 1]),
            node("Relu", f"c{i}", f"r{i}"),
            node("QuantizeLinear", f"r{i} s z", f"q{i + 1}"),
            node("DequantizeLinear", f"q{i + 1} s z", f"d{i + 1}"),
        ]
    nodes += [
        node("GlobalAveragePool", f"d{_CONVOLUTIONS}", "mean"),
        node("QuantizeLinear", "mean s z", "codes"),
        node("DequantizeLinear", "codes s z", "y"),
    ]
    folder = tmp_path_factory.mktemp("memory")
    onnx.save(
        model(nodes, {"x": ("float32", (1, 3, _SIZE, _SIZE))}, "y", constants),
        folder / "chain.onnx",
    )
    lowgemm.compile(folder / "chain.onnx").export(folder / "chain.so")
    return folder / "chain.so"


def test_plan(library: Path) -> None:
    (variant,) = lowgemm.load(library).manifest["variants"]
    assert 2 * _ACTIVATION <= variant["arena_bytes"] <= 3 * _ACTIVATION
    # Transformed for tiles of 4x4 pixels, filters of 3x3 taps take 36 times 16 bits.
    assert _WEIGHTS <= variant["constant_bytes"] <= 8 * _WEIGHTS


@pytest.mark.parametrize("threads", [1, 2])
def test_peak(library: Path, threads: int) -> None:
    """The peak of the resident set, without what Python, numpy and the input take."""
    code = """
import re, sys, numpy, lowgemm
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
x = numpy.ones([1, 3, int(sys.argv[2]), int(sys.argv[2])], numpy.float32)
before = peak()
net = lowgemm.load(sys.argv[1], threads=int(sys.argv[3]))
for _ in range(3):
    net({"x": x})
print(peak() - before)
"""
    command = [sys.executable, "-c", code, str(library), str(_SIZE), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = int(done.stdout)
    assert 2 * _ACTIVATION < taken < _WEIGHTS + 1.5 * (2 * _ACTIVATION) + _SLACK
