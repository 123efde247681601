"""Operators without weights equal their definitions in numpy on every level, bit for bit."""

import itertools

import numpy as np
import pytest

from lowgemm import reference
from lowgemm.graph import Node
from lowgemm.passes import Quantization
from lowgemm.quant import dequantize_linear, quantize_linear
from lowgemm.targets import CpuTarget, host

import conv_check
import kernels
from conv_check import POINTS
from isa import isas
from kernels import full_range

# (first, second, output): u8 and s8, zero points at the ends, sums of halves, and outputs that saturate.
OPERANDS = {
    "u8-ties": (("uint8", 0.5, 0), ("uint8", 1.5, 0), ("uint8", 1.0, 0)),
    "u8": (("uint8", 0.037, 131), ("uint8", 0.021, 118), ("uint8", 0.045, 120)),
    "u8-ends": (("uint8", 0.1, 255), ("uint8", 0.3, 0), ("uint8", 0.2, 255)),
    "s8": (("int8", 0.037, 3), ("int8", 0.021, -128), ("int8", 0.045, 127)),
    "u8-s8-to-u8": (("uint8", 0.25, 10), ("int8", 0.25, 0), ("uint8", 0.5, 128)),
}


def quantizations(case: str) -> tuple[Quantization, ...]:
    return tuple(Quantization(scale, point, dtype) for dtype, scale, point in OPERANDS[case])


def all_pairs(a_dtype: str, b_dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of codes, 65536 of them, as maps `(1, 16, 64, 64)`."""
    codes = [np.arange(256).astype(np.uint8).view(dtype) for dtype in (a_dtype, b_dtype)]
    pairs = np.meshgrid(*codes, indexing="ij")
    a, b = (grid.reshape(1, 16, 64, 64) for grid in pairs)
    return a, b


@pytest.mark.parametrize("case", OPERANDS)
@pytest.mark.parametrize("level", isas())
def test_add_of_every_pair_of_codes(level: str, case: str) -> None:
    first, second, out = quantizations(case)
    a, b = all_pairs(first.dtype, second.dtype)
    attrs = {"in": (first, second), "out": out, "low": out.range[0], "high": out.range[1]}
    node = Node("QAdd", ["a", "b"], ["y"], attrs, "add")
    inputs = {"a": a, "b": b}
    graph = kernels.graph_of([node], inputs, {"y": (a.shape, out.dtype)})
    want = conv_check.add(a, b, first, second, out)
    assert np.array_equal(kernels.run(graph, level, inputs)["y"], want)


def multiplied(a, b, first: Quantization, second: Quantization, out: Quantization) -> np.ndarray:
    """clamp(rint((a - za) * (b - zb) * (sa * sb / sy)) + zy): an exact product, one float32 factor."""
    product = (a.astype(np.int64) - first.zero_point) * (b.astype(np.int64) - second.zero_point)
    ratio = np.float32(first.scale * second.scale / out.scale)
    return np.clip(np.rint(product.astype(np.float32) * ratio) + out.zero_point, *out.range).astype(
        out.dtype
    )


@pytest.mark.parametrize("case", OPERANDS)
@pytest.mark.parametrize("level", isas())
def test_mul_of_every_pair_of_codes(level: str, case: str) -> None:
    first, second, out = quantizations(case)
    out = Quantization(out.scale * 64, out.zero_point, out.dtype)
    a, b = all_pairs(first.dtype, second.dtype)
    attrs = {"in": (first, second), "out": out, "low": out.range[0], "high": out.range[1]}
    node = Node("QMul", ["a", "b"], ["y"], attrs, "mul")
    inputs = {"a": a, "b": b}
    graph = kernels.graph_of([node], inputs, {"y": (a.shape, out.dtype)})
    want = multiplied(a, b, first, second, out)
    assert np.array_equal(kernels.run(graph, level, inputs)["y"], want)


@pytest.mark.parametrize("channels", [1, 19, 32], ids=lambda c: f"{c}-channels")
@pytest.mark.parametrize("level", isas())
def test_mul_by_one_value_per_channel(level: str, channels: int) -> None:
    first, second, out = quantizations("u8")
    out = Quantization(0.2, 200, "uint8")
    rng = np.random.default_rng(channels)
    inputs = {
        "a": full_range(rng, (1, channels, 7, 9), "uint8"),
        "b": full_range(rng, (1, channels, 1, 1), "uint8"),
    }
    attrs = {"in": (first, second), "out": out, "low": 0, "high": 255}
    node = Node("QMul", ["a", "b"], ["y"], attrs, "mul")
    graph = kernels.graph_of([node], inputs, {"y": (inputs["a"].shape, "uint8")})
    want = multiplied(inputs["a"], inputs["b"], first, second, out)
    assert np.array_equal(kernels.run(graph, level, inputs)["y"], want)


POOLS = {
    "2x2": ((1, 16, 8, 10), dict(kernel_shape=(2, 2), strides=(2, 2))),
    "3x3-padded": (
        (1, 32, 7, 9),
        dict(kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    ),
    "3x3-padded-unevenly": (
        (1, 16, 8, 6),
        dict(kernel_shape=(3, 3), strides=(1, 1), pads=(0, 2, 1, 0)),
    ),
    "1x3-of-5-channels": ((1, 5, 4, 9), dict(kernel_shape=(1, 3), strides=(1, 2))),
    "batch-of-2": ((2, 8, 6, 5), dict(kernel_shape=(3, 2), strides=(1, 1))),
    "whole-7x7": ((1, 19, 7, 7), dict(kernel_shape=(7, 7), strides=(1, 1))),
    "whole-1x1": ((1, 16, 1, 1), dict(kernel_shape=(1, 1), strides=(1, 1))),
}


def pool_sums(x: np.ndarray, attrs: dict, filler: int):
    """Yield every window's place and its elements, padding as `filler`, `(n, c, kernel size)`."""
    top, left, bottom, right = attrs.get("pads", (0, 0, 0, 0))
    wide = np.pad(
        x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=filler
    )
    (kh, kw), (sh, sw) = attrs["kernel_shape"], attrs["strides"]
    dh, dw = attrs.get("dilations", (1, 1))
    rows = range((wide.shape[2] - (kh - 1) * dh - 1) // sh + 1)
    columns = range((wide.shape[3] - (kw - 1) * dw - 1) // sw + 1)
    out = np.empty((*x.shape[:2], len(rows), len(columns), kh * kw), np.int64)
    for y, z in itertools.product(rows, columns):
        window = wide[
            :, :, y * sh : y * sh + (kh - 1) * dh + 1 : dh, z * sw : z * sw + (kw - 1) * dw + 1 : dw
        ]
        out[:, :, y, z] = window.reshape(*x.shape[:2], -1)
    return out


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, "uint8") for case in POOLS), ("3x3-padded", "int8"), ("1x3-of-5-channels", "int8")],
)
@pytest.mark.parametrize("level", isas())
def test_max_pool(level: str, case: str, dtype: str) -> None:
    shape, attrs = POOLS[case]
    x = full_range(np.random.default_rng(1), shape, dtype)
    want = pool_sums(x, attrs, np.iinfo(dtype).min).max(-1).astype(dtype)
    params = Quantization(1.0, 0, dtype)
    attrs = {"pads": (0, 0, 0, 0), **attrs, "in": (params,), "out": params}
    node = Node("QMaxPool", ["x"], ["y"], attrs, "pool")
    graph = kernels.graph_of([node], {"x": x}, {"y": (want.shape, dtype)})
    assert np.array_equal(kernels.run(graph, level, {"x": x})["y"], want)


@pytest.mark.parametrize(
    ("case", "include"),
    [*((case, 0) for case in POOLS), ("3x3-padded", 1), ("3x3-padded-unevenly", 1)],
    ids=lambda value: {0: "leave-padding-out", 1: "count-padding"}.get(value, value),
)
@pytest.mark.parametrize("level", isas())
def test_average_pool(level: str, case: str, include: int) -> None:
    """rint(((sum - count * zx) * sx / count) / sy) + zy, every step in float32."""
    shape, attrs = POOLS[case]
    source, out = Quantization(0.5, 255, "uint8"), Quantization(0.25, 200, "uint8")
    x = full_range(np.random.default_rng(2), shape, "uint8")
    total = pool_sums(x.astype(np.int64) - source.zero_point, attrs, 0).sum(-1)
    inside = pool_sums(np.ones(shape, np.int64), attrs, include).sum(-1)
    mean = total.astype(np.float32) * np.float32(source.scale) / inside.astype(np.float32)
    want = np.clip(np.rint(mean / np.float32(out.scale)) + out.zero_point, 0, 255).astype(np.uint8)
    attrs = {"pads": (0, 0, 0, 0), **attrs, "count_include_pad": include}
    attrs.update({"in": (source,), "out": out, "low": 0, "high": 255})
    node = Node("QAveragePool", ["x"], ["y"], attrs, "pool")
    graph = kernels.graph_of([node], {"x": x}, {"y": (want.shape, "uint8")})
    assert np.array_equal(kernels.run(graph, level, {"x": x})["y"], want)


@pytest.mark.parametrize("level", isas())
def test_max_pool_with_dilated_window_past_the_end(level: str) -> None:
    """ceil_mode lets the last window reach over the end, by its dilated width."""
    x = full_range(np.random.default_rng(3), (1, 3, 10, 10), "uint8")
    attrs = dict(kernel_shape=(2, 2), strides=(3, 3), dilations=(3, 3), pads=(0, 0, 2, 2))
    want = pool_sums(x, attrs, 0).max(-1).astype(np.uint8)[:, :, :3, :3]
    assert want.shape == (1, 3, 3, 3)
    params = Quantization(1.0, 0, "uint8")
    attrs = {**attrs, "pads": (0, 0, 0, 0), "ceil_mode": 1, "in": (params,), "out": params}
    node = Node("QMaxPool", ["x"], ["y"], attrs, "pool")
    graph = kernels.graph_of([node], {"x": x}, {"y": (want.shape, "uint8")})
    assert np.array_equal(kernels.run(graph, level, {"x": x})["y"], want)


MODES = ("half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners", "pytorch_half_pixel")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", isas("avx2", "avx512_vnni"))
def test_resize(level: str, mode: str) -> None:
    """Up and down, by factors that put coordinates on ties and that leave fractions of pixels."""
    x = full_range(np.random.default_rng(4), (1, 19, 8, 10), "uint8")
    params = Quantization(1.0, 0, "uint8")
    nodes, outputs, expected = [], {}, {}
    for nearest, (rows, columns) in itertools.product(NEAREST, [(2.0, 2.0), (1.27, 0.63)]):
        shape = (1, 19, int(8 * rows), int(10 * columns))
        attrs = {
            "mode": "nearest",
            "coordinate_transformation_mode": mode,
            "nearest_mode": nearest,
            "scales": [1.0, 1.0, rows, columns],
            "sizes": list(shape),
        }
        name = f"{nearest}-{rows}"
        expected[name] = reference.evaluate(Node("Resize", ["x"], [name], attrs), [x])[0]
        attrs = {**attrs, "in": (params,), "out": params}
        nodes.append(Node("QResize", ["x"], [name], attrs, name))
        outputs[name] = (shape, "uint8")
    graph = kernels.graph_of(nodes, {"x": x}, outputs)
    got = kernels.run(graph, level, {"x": x})
    for name, want in expected.items():
        assert np.array_equal(got[name], want), name


CONCATS = {
    "channels": (1, [(1, 16, 3, 5), (1, 3, 3, 5), (1, 32, 3, 5)]),
    "columns": (3, [(2, 8, 3, 4), (2, 8, 3, 1)]),
    "last-of-two-axes": (-1, [(3, 7), (3, 64)]),
}


@pytest.mark.parametrize("case", CONCATS)
@pytest.mark.parametrize("level", isas())
def test_concat_brings_operands_to_one_scale(level: str, case: str) -> None:
    axis, shapes = CONCATS[case]
    rng = np.random.default_rng(5)
    out = Quantization(0.2, 100, "uint8")
    sources = [out, Quantization(0.1, 7, "uint8"), Quantization(0.3, 255, "uint8")][: len(shapes)]
    inputs = {f"x{i}": full_range(rng, shape, "uint8") for i, shape in enumerate(shapes)}
    parts = [
        quantize_linear(dequantize_linear(x, s.scale, s.zero_point), out.scale, out.zero_point)
        for x, s in zip(inputs.values(), sources, strict=True)
    ]
    want = np.concatenate(parts, axis)
    attrs = {"axis": axis, "in": tuple(sources), "out": out}
    node = Node("QConcat", list(inputs), ["y"], attrs, "concat")
    graph = kernels.graph_of([node], inputs, {"y": (want.shape, "uint8")})
    assert np.array_equal(kernels.run(graph, level, inputs)["y"], want)


# Below one vector, whole vectors of both widths, and a rest behind them.
@pytest.mark.parametrize("size", [1, 31, 4096, 5003])
@pytest.mark.parametrize(("source", "target"), [("uint8", "uint8"), ("int8", "uint8")])
@pytest.mark.parametrize("level", isas())
def test_lookup(level: str, source: str, target: str, size: int) -> None:
    check_lookup(level, source, target, size)


@pytest.mark.parametrize("size", [1, 63, 4096, 5003])
@pytest.mark.parametrize("source", ["uint8", "int8"])
def test_lookup_with_all_that_the_host_has(source: str, size: int) -> None:
    check_lookup(host(), source, "uint8", size)


def check_lookup(level: str | CpuTarget, source: str, target: str, size: int) -> None:
    rng = np.random.default_rng(6)
    table = full_range(rng, (256,), target)
    x = full_range(rng, (size,), source)
    x[:256] = np.arange(256)[: x.size].astype(np.uint8).view(source)
    params, out = Quantization(1.0, 0, source), Quantization(1.0, 0, target)
    node = Node("QLut", ["x"], ["y"], {"table": table, "in": params, "out": out}, "table")
    graph = kernels.graph_of([node], {"x": x}, {"y": (x.shape, target)})
    want = table[x.astype(np.int64) - params.range[0]]
    assert np.array_equal(kernels.run(graph, level, {"x": x})["y"], want)


# Maps change their order, the others keep it; one pixel and one channel are both. Few channels are interleaved by
# vectors of 16 pixels where these divide a row.
SHAPES = [(300,), (2, 3, 7), (2, 19, 5, 6), (1, 3, 8, 20), (1, 24, 1, 1), (1, 1, 5, 7)]
SHAPES += [(2, 3, 3, 48), (1, 2, 5, 16), (1, 4, 1, 32), (1, 5, 2, 16)]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("level", isas())
def test_quantize_and_dequantize(level: str, dtype: str) -> None:
    """Halves of the scale are ties; values far outside saturate."""
    rng = np.random.default_rng(7)
    nodes, inputs, outputs, expected = [], {}, {}, {}
    for index, (shape, point) in enumerate(zip(SHAPES, itertools.cycle(POINTS[dtype]))):
        params = Quantization(0.25, point, dtype)
        halves = rng.integers(-600, 600, shape) * np.float32(0.125)
        x = np.where(rng.random(shape) < 0.1, rng.normal(size=shape) * 1e30, halves)
        x, codes = x.astype(np.float32), full_range(rng, shape, dtype)
        there, back = f"quantized{index}", f"real{index}"
        nodes.append(Node("Quantize", [f"x{index}"], [there], {"params": params}, there))
        nodes.append(Node("Dequantize", [f"q{index}"], [back], {"params": params}, back))
        inputs.update({f"x{index}": x, f"q{index}": codes})
        outputs.update({there: (shape, dtype), back: (shape, "float32")})
        expected[there] = quantize_linear(x, 0.25, point, dtype)
        expected[back] = dequantize_linear(codes, 0.25, point)
    got = kernels.run(kernels.graph_of(nodes, inputs, outputs), level, inputs)
    for name, want in expected.items():
        assert np.array_equal(got[name], want), name


@pytest.mark.parametrize("level", isas())
def test_quantize_of_what_is_no_number(level: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38] * 8, np.float32)
    params = Quantization(0.25, 7, "uint8")
    node = Node("Quantize", ["x"], ["y"], {"params": params}, "quantize")
    graph = kernels.graph_of([node], {"x": x}, {"y": (x.shape, "uint8")})
    want = quantize_linear(x, 0.25, 7)
    assert np.array_equal(kernels.run(graph, level, {"x": x})["y"], want)
