"""The oracle gives the codes of FBGEMM itself, as PyTorch calls it.

Operands keep to 7 bits, because FBGEMM's kernels saturate pairs of products on CPUs without VNNI.
"""

from typing import Any

import numpy as np
import pytest

from lowgemm.quant import (
    dequantize_rows,
    quantize_reciprocal,
    quantize_rows,
)
from lowgemm.reference import column_offsets, conv_i32, embedding_bag, gemm_i32, output_stage

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.skipif(
        "fbgemm" not in torch.backends.quantized.supported_engines, reason="PyTorch without FBGEMM"
    ),
    pytest.mark.filterwarnings("ignore:.*deprecated.*"),
]
F = np.float32
X_SCALE, OUT_SCALE, X_POINT, OUT_POINT = 0.03, 0.9, 43, 77


@pytest.fixture(autouse=True)
def engine():
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    yield
    torch.backends.quantized.engine = before


def ops() -> Any:
    return torch.ops.quantized


def tensor(x: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(x))


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(0.37, 12), (0.0021485486, 100), (1.7, 255), (25.0, 0)]
)
def test_quantize(scale: float, zero_point: int):
    x = (np.random.default_rng(0).normal(size=100_003) * 50).astype(F)
    theirs = torch.quantize_per_tensor(tensor(x), scale, zero_point, torch.quint8)
    assert (theirs.int_repr().numpy() == quantize_reciprocal(x, scale, zero_point)).all()


def row_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = {
        "uniform": rng.uniform(-10, 10, (50, 84)),
        "far from zero": rng.uniform(1000, 1001, (50, 84)),
        "nearly constant": 0.1 + rng.uniform(0, 1e-7, (50, 84)),
        "of any size": rng.normal(size=(200, 64)) * rng.uniform(1e-6, 100, (200, 1)),
    }
    return {name: values.astype(F) for name, values in rows.items()}


@pytest.mark.parametrize("data", row_data())
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rows(data: str, bits: int):
    x = row_data()[data]
    name = "byte" if bits == 8 else f"{bits}bit"
    params = "float32" if bits == 8 else "float16"
    rows = quantize_rows(x, bits, params)
    assert (getattr(ops(), f"embedding_bag_{name}_prepack")(tensor(x)).numpy() == rows).all()
    back = getattr(ops(), f"embedding_bag_{name}_unpack")(tensor(rows)).numpy()
    assert (back == dequantize_rows(rows, bits, params)).all()


@pytest.mark.parametrize("bits", [32, 8, 4, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_bags(bits: int, weighted: bool):
    rng = np.random.default_rng(bits)
    x = rng.normal(size=(1000, 128)).astype(F)
    indices = rng.integers(0, 1000, 500)
    offsets = np.concatenate([[0], np.sort(rng.integers(0, 500, 60)), [500]])
    weights = rng.normal(size=500).astype(F) if weighted else None
    given = {
        "per_sample_weights": None if weights is None else tensor(weights),
        "include_last_offset": True,
    }
    where = (tensor(indices), tensor(offsets))
    if bits == 32:
        table = x
        bag = torch.nn.functional.embedding_bag
        theirs = bag(where[0], tensor(x), where[1], mode="sum", **given)
    else:
        table = quantize_rows(x, bits, "float32" if bits == 8 else "float16")
        name = "byte" if bits == 8 else f"{bits}bit"
        bag = getattr(ops(), f"embedding_bag_{name}_rowwise_offsets")
        theirs = bag(tensor(table), *where, **given)
    given_bits = 8 if bits == 32 else bits  # which float rows do not have
    ours = embedding_bag(table, indices, offsets=offsets, weights=weights, bits=given_bits)
    assert (theirs.numpy() == ours).all()


def operands(rng, x_shape: tuple[int, ...], w_shape: tuple[int, ...], axis: int):
    """Codes of both sides, the scales of `axis` of the weights, and PyTorch's tensors of them."""
    x = rng.integers(0, 128, x_shape).astype(np.uint8)
    w = rng.integers(-64, 64, w_shape).astype(np.int8)
    scales = rng.uniform(0.01, 0.02, w_shape[axis]).astype(F)
    points = torch.zeros(w_shape[axis], dtype=torch.long)
    per_channel = torch._make_per_channel_quantized_tensor
    theirs = per_channel(tensor(w), tensor(scales.astype(np.float64)), points, axis)
    return x, w, scales, theirs


def stage(acc, scales, bias, relu: bool, **corrections) -> np.ndarray:
    """FBGEMM's requantization with the multipliers that PyTorch gives it: float32, as the scales."""
    act_times_w = F(X_SCALE) * scales
    return output_stage(
        acc, multiplier=act_times_w / F(OUT_SCALE), zero_point=OUT_POINT, bias=bias,
        bias_scale=act_times_w, activation="relu" if relu else None, **corrections,
    )  # fmt: skip


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 128, 512), (6, 257, 64), (120, 4, 288)])
def test_linear(relu: bool, shape: tuple[int, int, int]):
    rows, columns, depth = shape
    rng = np.random.default_rng(depth)
    x, w, scales, weight = operands(rng, (rows, depth), (columns, depth), 0)
    bias = (rng.normal(size=columns) * 5).astype(F)
    data = torch._make_per_tensor_quantized_tensor(tensor(x), X_SCALE, X_POINT)
    packed = ops().linear_prepack(weight, tensor(bias))
    theirs = (ops().linear_relu if relu else ops().linear)(data, packed, OUT_SCALE, OUT_POINT)
    ours = stage(
        gemm_i32(x, w.T), scales, bias, relu,
        lhs_zero_point=X_POINT, column_offsets=column_offsets(w.T),
    )  # fmt: skip
    assert (theirs.int_repr().numpy() == ours).all()


# (spatial, in, out, kernel, stride, pad, dilation, group)
CONVS = [
    ((30,), 16, 32, (3,), (2,), (1,), (1,), 1),
    ((13, 14), 16, 16, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((13, 14), 16, 32, (3, 2), (2, 1), (0, 1), (2, 1), 2),
    ((9, 9), 16, 16, (3, 3), (2, 2), (1, 1), (1, 1), 16),
    ((5, 6, 7), 8, 16, (3, 3, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1), 2),
]


@pytest.mark.parametrize("case", CONVS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_convolution(case, transposed: bool):
    spatial, inputs, outputs, kernel, strides, pads, dilations, group = case
    rank = len(spatial)
    if transposed and rank == 3:
        group = 1  # PyTorch asks for it
    rng = np.random.default_rng(rank)
    w_shape = (inputs, outputs // group) if transposed else (outputs, inputs // group)
    x, w, scales, weight = operands(rng, (2, inputs, *spatial), (*w_shape, *kernel), 0)
    if transposed:  # with one scale for all channels, which is what PyTorch has
        scales = np.full(outputs, 0.0125, F)
        weight = torch._make_per_tensor_quantized_tensor(tensor(w), 0.0125, 0)
    bias = (rng.normal(size=outputs) * 5).astype(F)
    data = torch._make_per_tensor_quantized_tensor(tensor(x), X_SCALE, X_POINT)
    extra = [s - 1 for s in strides] if transposed else [0] * rank
    name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    options = [strides, pads, *([extra] if transposed else []), dilations, group]
    packed = getattr(ops(), f"{name}_prepack")(weight, tensor(bias), *options)
    theirs = getattr(ops(), name)(data, packed, OUT_SCALE, OUT_POINT)
    layout = ("NCW", "NCHW", "NCDHW")[rank - 1]
    acc = conv_i32(
        x, w, X_POINT, 0, strides, [*pads, *pads], dilations, group, layout,
        transposed=transposed, output_padding=extra,
    )  # fmt: skip
    ours = np.moveaxis(stage(np.moveaxis(acc, 1, -1), scales, bias, relu=False), -1, 1)
    assert (theirs.int_repr().numpy() == ours).all()
