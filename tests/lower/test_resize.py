"""Float Resize equals the reference in every mode, whichever axes it changes."""

import itertools

import numpy as np
import pytest

from lowgemm.errors import UnsupportedOperatorError
from lowgemm.passes import fuse_quantized
from lowgemm.reference import run_graph

import kernels
import whole
from whole import Model

pytestmark = pytest.mark.isa(whole.LEVEL)

COORDINATES = ("half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")
COORDINATES += ("pytorch_half_pixel",)
# Four products a axis in float32, weights in [-1, 1.5], values around 1; seen 5e-7.
TOLERANCE = 1e-5


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_modes(mode: str) -> None:
    """Scales that give no whole numbers of elements, up and down, on rows and columns or on all axes."""
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 10)).astype(np.float32)
    m = Model(x=x)
    results = []
    for coordinates, scales in itertools.product(
        COORDINATES, [(1, 1, 0.6, 2.3), (1, 1, 2, 0.5), (1, 2, 1.5, 0.8)]
    ):
        attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
        scale = m.constant(scales, np.float32)
        results.append(m.op("Resize", "x", "-", scale, **attrs))
    graph = m.graph(*results)
    want = run_graph(graph, m.inputs)
    got = kernels.run(fuse_quantized(graph.copy()), whole.LEVEL, m.inputs)
    for name, expected in want.items():
        assert got[name].shape == expected.shape
        if mode == "nearest":
            assert np.array_equal(got[name], expected)
        else:
            assert np.abs(got[name] - expected).max() < TOLERANCE


def test_resize_of_integers_is_refused() -> None:
    m = Model(x=whole.codes(1, 3, 4, 4))
    y = m.op("Resize", "x", "-", m.constant([1, 1, 2, 2], np.float32), mode="linear")
    with pytest.raises(UnsupportedOperatorError, match="Resize"):
        m.check(y)


def test_scalar_output() -> None:
    """A product of vectors has no axes; neither has the copy that brings it to its place."""
    m = Model(x=np.array([1, 2, 3], np.float32), y=np.array([4, 5, 6], np.float32))
    m.check(m.op("MatMul", "x", "y"))
