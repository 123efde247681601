"""Grouped kernels whose lanes are groups: exact for all geometries that they take, and taken where weights let them."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lowgemm import tiling
from lowgemm.ops import _conv_kernels
from lowgemm.packing import ConvShape, DotLayout, GroupedPacking
from lowgemm.quant import sums_fit
from lowgemm.schedules import KernelTask, check_config
from lowgemm.targets import LEVELS

from convolutions import Convolution, check_kernel, requantizing
from isa import isas

WINDOWS = {
    "3x3": {"kernel": (3, 3), "padding": 1},
    "3x3-stride-2": {"kernel": (3, 3), "strides": 2, "padding": 1},
    "3x3-stride-1x2": {"kernel": (3, 3), "strides": (1, 2), "padding": (0, 1, 2, 0)},
    "3x3-dilated": {"kernel": (3, 3), "dilations": (2, 3), "padding": (2, 3)},
    "3x3-inside": {"kernel": (3, 3), "strides": 2},
    "1x1": {"kernel": (1, 1)},
    "4x5": {"kernel": (4, 5), "padding": (1, 2, 2, 0)},
}
# Channels of a group, and how many groups: neither whole blocks of 8 lanes nor of 16.
GROUPS = {"2": (2, 44), "4": (4, 20), "8": (8, 20)}


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that were chosen."""
    found = []

    def kernel_for(*args: Any) -> Any:
        found.append(_conv_kernels.kernel_for(*args))
        return found[-1]

    monkeypatch.setattr("lowgemm.ops._conv_plan.kernel_for", kernel_for)
    return found


def check(conv: Convolution, isa: str, kind: str = "pairs-at-the-limit") -> None:
    check_kernel(conv, isa, kind)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("isa", isas())
def test_every_window_is_exact(isa: str, window: str, groups: str, made: list[Any]) -> None:
    each, count = GROUPS[groups]
    channels = each * count
    conv = Convolution(
        (2, 10, 11, channels),
        channels,
        **WINDOWS[window],
        groups=count,
        x_zero_point=7,
        output=requantizing(channels, "uint8"),
    )
    check(conv, isa)
    assert all(isinstance(kernel, _conv_kernels.Grouped) for kernel in made)


@pytest.mark.parametrize("groups", ["4", "8"])
@pytest.mark.parametrize("isa", isas())
def test_every_width_of_a_tile_is_exact(
    isa: str, groups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, count = GROUPS[groups]
    for pixels, whole in itertools.product(range(1, 8), (False, True)):
        config = tiling.GroupedConfig(pixels, whole)
        monkeypatch.setattr(_conv_kernels, "default_grouped_config", lambda *_, c=config: c)
        conv = Convolution((1, 3, 8, each * count), each * count, (3, 3), 1, 1, groups=count)
        conv = replace(conv, output=requantizing(each * count, "uint8"))
        task = KernelTask("qgrouped2d", shape_of(conv), "uint8", "uint8", None, view(isa), 1)
        try:
            check_config(task, config)
        except ValueError as error:
            assert "registers" in str(error)
            with pytest.raises(ValueError, match=r"a tile has at most . pixels? in .. registers"):
                check(conv, isa)
        else:
            check(conv, isa)


def view(isa: str) -> Any:
    return LEVELS[isa].summing(1)


def shape_of(conv: Convolution) -> ConvShape:
    batch, height, width, channels = conv.x
    sizes = (batch, height, width, channels, conv.out)
    return ConvShape(*sizes, (3, 3), padding=(1, 1, 1, 1), groups=conv.groups)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("x_dtype", "dtype"), [("int8", "uint8"), ("uint8", "int8"), ("int8", "int8")]
)
@pytest.mark.parametrize("isa", isas())
def test_signs_activations_and_zero_points(
    isa: str, x_dtype: str, dtype: str, activation: str
) -> None:
    output = requantizing(80, dtype, activation)
    if activation == "leaky_relu":
        output = replace(output, slope=0.1)
    conv = Convolution(
        *((1, 7, 8, 80), 80, (3, 3), 2, 1),
        groups=20,
        x_dtype=x_dtype,
        x_zero_point=-3 if x_dtype == "int8" else 250,
        output=output,
    )
    check(conv, isa)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("isa", isas())
def test_planes_rows_and_transposed(isa: str, groups: str, made: list[Any]) -> None:
    each, count = GROUPS[groups]
    channels = each * count
    common = {"groups": count, "x_zero_point": 100, "output": requantizing(channels, "uint8")}
    check(Convolution((1, 5, 4, 6, channels), channels, (3, 3, 3), 2, 1, **common), isa)
    check(Convolution((2, 9, channels), channels, (3,), 1, 1, **common), isa)
    conv = Convolution((1, 4, 5, channels), channels, (3, 3), 2, 1, transposed=True, **common)
    check(conv, isa)
    assert all(isinstance(kernel, _conv_kernels.Grouped) for kernel in made)


@pytest.mark.emulated
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("isa", isas())
def test_lanes_of_every_level(isa: str, groups: str, made: list[Any]) -> None:
    each, count = GROUPS[groups]
    channels = each * count
    conv = Convolution((1, 3, 9, channels), channels, (3, 3), 1, 1, groups=count, x_dtype="int8")
    check(replace(conv, x_zero_point=5, output=requantizing(channels, "int8")), isa)
    assert all(isinstance(kernel, _conv_kernels.Grouped) for kernel in made)


@pytest.mark.parametrize("isa", isas())
def test_weights_that_do_not_fit_are_exact_too(isa: str, made: list[Any]) -> None:
    conv = Convolution((1, 6, 7, 80), 80, (3, 3), 1, 1, groups=20, output=requantizing(80, "uint8"))
    for kind in ("random", "saturating", "extreme"):
        check(conv, isa, kind)
    fits = LEVELS[isa].dot_depth == 4
    assert all(isinstance(kernel, _conv_kernels.Grouped) == fits for kernel in made)


@pytest.mark.parametrize("each", [1, 2, 4, 8])
@pytest.mark.parametrize("lanes", [8, 16])
def test_filters_are_packed_by_lanes(lanes: int, each: int) -> None:
    channels = 40 * max(4, each)
    groups = channels // each
    shape = ConvShape(1, 5, 5, channels, channels, (2, 3), groups=groups)
    packing = GroupedPacking.of(shape, DotLayout(lanes, 4, "uint8", "int8"))
    assert packing is not None
    w = np.random.default_rng(0).integers(-128, 128, (channels, each, 2, 3)).astype(np.int8)
    packed, numbers = packing.pack(w), packing.pack_channels(np.arange(channels))
    size = max(4, each)
    blocks = -(-40 // lanes)
    assert packed.shape == (blocks, 2, 3, size // 4, size, lanes, 4)
    assert sorted(set(numbers.ravel())) == list(range(channels))
    for block, output, lane in np.ndindex(numbers.shape):
        channel = numbers[block, output, lane]
        found = packed[block, :, :, :, output, lane].transpose(2, 3, 0, 1).reshape(size, 2, 3)
        wanted = np.zeros_like(found)
        first = channel % size // each * each
        wanted[first : first + each] = w[channel]
        assert (found == wanted).all()
    assert packing.sums_fit(packed) == sums_fit(packed.reshape(1, -1, 4), 1)


def test_which_convolutions_are_taken() -> None:
    layout = DotLayout(8, 4, "uint8", "int8")
    shape = ConvShape(1, 9, 9, 64, 64, (3, 3), groups=16)

    def taken(**change: Any) -> bool:
        return GroupedPacking.of(replace(shape, **change), layout) is not None

    assert taken() and taken(groups=8) and taken(groups=32)
    assert not taken(groups=4) and not taken(groups=1) and not taken(out_channels=128)
    assert not taken(in_channels=24, out_channels=24, groups=6)
    assert not taken(in_channels=48, out_channels=48, groups=16)
    for level, target in LEVELS.items():
        view = target.summing(1)
        assert (tiling.grouped_packing(shape, target) is None) == (target.dot_depth == 2), level
        assert tiling.grouped_packing(shape, view) is not None
        # Blocks of lanes that would be little used.
        few = replace(shape, in_channels=4 * view.lanes + 4, out_channels=4 * view.lanes + 4)
        few = replace(few, groups=view.lanes + 1)
        assert tiling.grouped_packing(few, view) is None, level
