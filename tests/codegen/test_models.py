"""Small models from file to result: every level, any number of threads, the same bytes each time."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lowgemm
from lowgemm import frontend, reference

import kernels
from isa import LEVELS, isas
from onnx_models import model, node

RNG = np.random.default_rng(11)


def weight(*shape: int) -> np.ndarray:
    return kernels.full_range(RNG, shape, "int8")


class Builder:
    """A QDQ model, one quantized layer after the other; every scale is a power of two, so the reference is exact."""

    def __init__(self, **inputs: np.ndarray) -> None:
        self.inputs = inputs
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def dequantize(self, codes: str, scale: float, point: int, dtype: str = "uint8") -> str:
        real = f"{codes}_real"
        self._parameters(real, scale, point, dtype)
        self.nodes.append(node("DequantizeLinear", f"{codes} {real}_s {real}_z", real))
        return real

    def quantize(self, real: str, scale: float, point: int) -> str:
        codes = f"{real}_codes"
        self._parameters(codes, scale, point, "uint8")
        self.nodes.append(node("QuantizeLinear", f"{real} {codes}_s {codes}_z", codes))
        return codes

    def layer(self, op: str, *inputs: str, scale: float = 0.25, point: int = 100, **attrs) -> str:
        """An operator on real tensors; its result is quantized and dequantized again."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, " ".join(inputs), name, **attrs))
        return self.dequantize(self.quantize(name, scale, point), scale, point)

    def weights(self, value: np.ndarray, scale: float) -> str:
        name = f"w{len(self.nodes)}"
        self.constants[name] = value
        return self.dequantize(name, scale, 0, "int8")

    def constant(self, value) -> str:
        name = f"c{len(self.nodes)}"
        self.constants[name] = np.asarray(value)
        return name

    def _parameters(self, name: str, scale: float, point: int, dtype: str) -> None:
        self.constants[f"{name}_s"] = np.asarray(scale, np.float32)
        self.constants[f"{name}_z"] = np.asarray(point, dtype)

    def save(self, path: Path, *outputs: str) -> Path:
        onnx.save(model(self.nodes, self.inputs, " ".join(outputs), self.constants), path)
        return path


def residual_network(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Float image -> strided first layer, inverted residual with depthwise and hard-swish, concat, pool, classifier."""
    image = RNG.integers(-500, 500, (1, 3, 18, 20)).astype(np.float32) / 64
    b = Builder(image=image)
    x = b.dequantize(b.quantize("image", 2.0**-5, 128), 2.0**-5, 128)
    pad: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    x = b.layer("Conv", x, b.weights(weight(16, 3, 3, 3), 2.0**-6), strides=[2, 2], **pad)
    y = b.layer("Conv", x, b.weights(weight(40, 16, 1, 1), 2.0**-8))
    y = b.layer("HardSwish", y)
    y = b.layer("Conv", y, b.weights(weight(40, 1, 3, 3), 2.0**-6), group=40, **pad)
    y = b.layer("Relu", y)
    y = b.layer("Conv", y, b.weights(weight(16, 40, 1, 1), 2.0**-8))
    x = b.layer("Add", x, y)
    x = b.layer("Concat", x, y, axis=1)
    x = b.layer("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.layer("AveragePool", x, kernel_shape=[4, 4], strides=[1, 1])
    x = b.layer("Flatten", x)
    x = b.layer("Gemm", x, b.weights(weight(64, 10), 2.0**-7))
    b.nodes.append(node("Identity", x, "logits"))
    return b.save(path, "logits"), {"image": image}


def one_table(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """One kernel that neither spreads over threads nor takes workspace."""
    codes = kernels.full_range(RNG, (5,), "uint8")
    b = Builder(codes=codes)
    b.layer("Relu", b.dequantize("codes", 0.5, 128))
    return b.save(path, b.nodes[-2].output[0]), {"codes": codes}


def two_ports(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Codes in, codes and floats out, a float operator between."""
    a = kernels.full_range(RNG, (1, 6, 5, 7), "uint8")
    other = kernels.full_range(RNG, (1, 6, 5, 7), "uint8")
    b = Builder(a=a, other=other)
    x, y = b.dequantize("a", 0.5, 128), b.dequantize("other", 0.25, 3)
    b.layer("Add", x, y)
    total = b.nodes[-2].output[0]
    b.nodes.append(node("Neg", b.nodes[-1].output[0], "negative"))
    return b.save(path, total, "negative"), {"a": a, "other": other}


MODELS = {"network": residual_network, "one-table": one_table, "two-ports": two_ports}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """name -> path, inputs and what the reference computes; made once."""

    @functools.cache
    def make(name: str):
        path, inputs = MODELS[name](tmp_path_factory.mktemp(name) / "model.onnx")
        return path, inputs, reference.run_graph(frontend.load_onnx(path), inputs)

    return make


# No CPU is emulated on which AMX shows.
EVERY = [*isas(*(level for level in LEVELS if level != "amx_int8")), *isas("amx_int8", native=True)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("level", EVERY)
def test_model_equals_the_reference(level: str, name: str, saved, tmp_path: Path) -> None:
    path, inputs, want = saved(name)
    library = lowgemm.compile(path, target=level).export(tmp_path / f"{name}-{level}.so")
    for threads in (1, 2):
        net = lowgemm.load(library, threads=threads)
        for _ in range(2):  # the second run finds the first one's memory
            got = net(inputs)
            assert set(got) == set(want)
            for output, value in want.items():
                assert got[output].dtype == value.dtype
                assert np.array_equal(got[output], value), output


@pytest.mark.isa("avx2")
def test_work_arranged_for_other_threads_gives_the_same_result(saved, tmp_path: Path) -> None:
    path, inputs, want = saved("network")
    library = lowgemm.compile(path, target="avx2", threads=7).export(tmp_path / "for-7.so")
    got = lowgemm.load(library, threads=3)(inputs)
    assert np.array_equal(got["logits"], want["logits"])


def test_the_same_model_gives_the_same_bytes(saved, tmp_path: Path) -> None:
    path, _, _ = saved("two-ports")
    first, second = (
        lowgemm.compile(path, target="avx512_vnni,avx2", threads=2).export(tmp_path / f"{i}.so")
        for i in range(2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".h").read_bytes() == second.with_suffix(".h").read_bytes()
