"""Codes far beyond their type are its ends, whatever packs them: between, they pass 16 bits of either sign."""

import numpy as np
import pytest

from lowgemm.passes import Quantization
from lowgemm.quant import requantize

import kernels
from conv_check import Conv
from isa import isas

AROUND = (1, 1, 1, 1)
LAYERS = {
    "dense": Conv((1, 64, 14, 14), 64),
    "fewer-products": Conv((1, 64, 14, 14), 64, (3, 3), pads=AROUND),
    "depthwise": Conv((1, 64, 14, 14), 64, (3, 3), pads=AROUND, group=64),
    "depthwise-few": Conv((1, 24, 14, 14), 24, (3, 3), pads=AROUND, group=24),
    "grouped": Conv((1, 64, 14, 14), 64, (3, 3), pads=AROUND, group=16),
}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("level", isas())
def test_codes_far_beyond_their_type_are_its_ends(level: str, layer: str, dtype: str) -> None:
    conv, rng = LAYERS[layer], np.random.default_rng(0)
    x = rng.integers(0, 256, conv.x, np.uint8)
    # Of which 16 bits hold all sums of two products, so that grouped kernels are taken without VNNI, too.
    w = rng.integers(-64, 64, conv.w, np.int8)
    sums = conv.accumulate(x, w, 0)
    assert sums.max() > 2**15 and sums.min() < -(2**15)
    out = Quantization(1.0, 0, dtype)
    low, high = out.range
    scale = np.ones(conv.out, np.float32)
    bias, x_params = np.zeros(conv.out, np.int32), Quantization(1.0, 0, "uint8")
    node = conv.node("layer", w, bias, scale, x_params, out, low=low, high=high)
    graph = kernels.graph_of([node], {"layer/x": x}, {"layer/y": (sums.shape, dtype)})
    got = kernels.run(graph, level, {"layer/x": x}, 1)["layer/y"]
    assert (got == requantize(sums, 1.0, 0, dtype, lower=low, upper=high)).all()
