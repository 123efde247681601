"""The instructions that kernels claim are in their inner loops, and accumulators stay in registers there.

The compiler writes the code of any level on any host: nothing runs here.
"""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
import tvm

from lowgemm import codegen, lower
from lowgemm.artifact.objects import compile_kernels
from lowgemm.passes import Quantization
from lowgemm.schedules import default_config
from lowgemm.targets import LEVELS

import kernels
from conv_check import Conv

# level -> what its dot products look like (AT&T syntax)
INSTRUCTION = {
    "amx_int8": r"^vpdpbusd\s.*%zmm\d+$",  # tiles are for packed products: test_amx.py
    "avx512_vnni": r"^vpdpbusd\s.*%zmm\d+$",
    "avx_vnni": r"^\{vex\}\s+vpdpbusd\s.*%ymm\d+$",
    "avx512": r"^vpmaddwd\s.*%zmm\d+$",
    "avx2": r"^vpmaddwd\s.*%ymm\d+$",
}
CONV = Conv((1, 64, 56, 56), 64, (5, 5), pads=(2, 2, 2, 2))
# By fewer products, of 16 bits.
FEWER = Conv((1, 64, 56, 56), 64, (3, 3), pads=(1, 1, 1, 1))
# The second is read where it lies, and the first is not, as the tuner may choose, too.
DEPTHWISE = Conv((1, 64, 14, 14), 64, (3, 3), pads=(1, 1, 1, 1), group=64)
DIRECT = Conv((1, 64, 56, 56), 64, (3, 3), (2, 2), pads=(1, 1, 1, 1), group=64)
# Of outputs that do not stay in the second cache.
FAR = Conv((1, 64, 112, 112), 64, (3, 3), pads=(1, 1, 1, 1), group=64)
# Of tiles of 13 pixels, whose sums leave three registers of sixteen: no default any more, but the tuner's to choose.
TALL = Conv((1, 192, 26, 26), 384, (3, 3), (2, 2), pads=(1, 1, 1, 1))
# Of tiles of two pixels by four vectors.
WIDE = Conv((1, 128, 26, 26), 64, (5, 5), pads=(2, 2, 2, 2))
# Of rows that no tile divides, so that they are copied, in channels that only 16 divides.
UNEVEN = Conv((1, 144, 14, 223), 24)
# A layer that a network ends with, and one with the weights in another order.
POINTWISE = Conv((1, 512, 7, 7), 512)
# Of pixels that do not stay in the second cache.
FAR_POINTWISE = Conv((1, 256, 112, 80), 32)
GEMM = Conv((1, 512), 1024)
LAYERS = {
    "conv-3x3": FEWER,
    "conv-5x5": CONV,
    "conv-1x1": POINTWISE,
    "conv-1x1-far": FAR_POINTWISE,
    "gemm": GEMM,
    "depthwise-3x3": DEPTHWISE,
    "depthwise-3x3-stride-2": DIRECT,
    "depthwise-3x3-far": FAR,
    "conv-5x5-pairs": CONV,
    "gemm-pairs": GEMM,
    "conv-5x5-quads": CONV,
    "gemm-quads": GEMM,
    "conv-5x5-words": CONV,
    "conv-1x1-words": POINTWISE,
    "conv-3x3-words": TALL,
    "conv-5x5-wide-words": WIDE,
    "conv-1x1-uneven": UNEVEN,
    "gemm-words": GEMM,
}
# Of which 16 bits hold the sum of two or four products, or of four if large words go with small ones. Of the weights of
# other layers they hold none.
WEIGHTS = {"pairs": [64], "quads": [32], "words": np.repeat([52, 12], 8)}
TILES = {("conv-3x3-words", "avx2"): {"columns": 13, "vectors": 1}}
LEVEL_NAMES = tuple(LEVELS)


@functools.cache
def assembly(name: str, level: str) -> tuple[str, ...]:
    """The kernel of a layer in its default configuration or that of `TILES`, one stripped line each."""
    conv = LAYERS[name]
    out = Quantization(1.0, 0, "uint8")
    channels = np.resize(WEIGHTS.get(name.rpartition("-")[2], [127]), (conv.w[1], 1, 1))
    weight = np.broadcast_to(channels, conv.w).astype(np.int8)
    bias, scale = np.zeros(conv.out, np.int32), np.ones(conv.out, np.float32)
    node = conv.node("layer", weight, bias, scale, out, out, low=0, high=255)
    shape = (1, conv.out, *conv.x[2:])
    graph = kernels.graph_of(
        [node], {"layer/x": np.zeros(conv.x, np.uint8)}, {"layer/y": (shape, "uint8")}
    )
    program = lower.lower(graph.copy(), LEVELS[level], 1)
    if name == "depthwise-3x3":
        (task,) = (call.task for call in program.calls if call.task)
        task = replace(task, family="qdepthwise2d")
        program = lower.lower(graph.copy(), LEVELS[level], 1, {task.key: default_config(task)})
    if (name, level) in TILES:
        (task,) = (call.task for call in program.calls if call.task)
        config = replace(default_config(task), **TILES[name, level])
        program = lower.lower(graph, LEVELS[level], 1, {task.key: config})
    (symbol,) = {call.symbol for call in program.calls if call.macs}
    module = tvm.IRModule({symbol: program.kernels[symbol]})
    compiled = compile_kernels(module, codegen.llvm_target(LEVELS[level]))
    return tuple(line.strip() for line in compiled.mod.inspect_source("asm").splitlines())


def is_dot(line: str) -> bool:
    return any(name in line for name in ("vpdpbusd", "vpdpwssd", "vpmaddwd"))


def inner_loops(lines: tuple[str, ...]) -> list[list[str]]:
    """From the first dot product to the last, of every piece of code without a jump that has some."""
    pieces, piece = [], []
    for line in lines:
        if re.match(r"^\.LBB\w+:|^j\w+\s", line):
            pieces.append(piece)
            piece = []
        else:
            piece.append(line)
    found = []
    for each in (*pieces, piece):
        dots = [i for i, line in enumerate(each) if is_dot(line)]
        if dots:
            found.append(each[dots[0] : dots[-1] + 1])
    return found


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_inner_loop_consists_of_the_instruction(level: str, layer: str) -> None:
    loops = inner_loops(assembly(layer, level))
    assert loops
    for loop in loops:
        dots = [line for line in loop if is_dot(line)]
        # With VNNI, products of 16 bits are one instruction, too.
        wanted = INSTRUCTION[level]
        if layer == "conv-3x3":
            wanted = wanted.replace("vpdpbusd", "vpdpwssd")
        assert all(re.match(wanted, line) for line in dots), dots


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_saturating_instruction_only_where_weights_fit_and_none_of_another_level(
    level: str, layer: str
) -> None:
    text = "\n".join(assembly(layer, level))
    vnni, wide = LEVELS[level].dot_depth == 4, LEVELS[level].vector_bits == 512
    fitting = layer.rpartition("-")[2] in WEIGHTS
    assert ("vpmaddubsw" in text) == (fitting and not vnni)
    assert (("vpdpwssd" if layer == "conv-3x3" else "vpdpbusd") in text) == vnni
    assert ("%zmm" in text) == wide
    if not wide:
        assert not re.search(r"%[xy]mm(1[6-9]|[23]\d)\b|%k[0-7]", text), "AVX-512 registers"


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_four_products_are_added_up_by_one_instruction_of_two_and_eight_by_one_of_three(
    level: str,
) -> None:
    for layer, products in (("conv-5x5-pairs", 1), ("conv-5x5-quads", 2)):
        for loop in inner_loops(assembly(layer, level)):
            counts = [sum(name in line for line in loop) for name in ("vpmaddubsw", "vpmaddwd")]
            # The piece begins with the first sum: behind its products.
            assert abs(counts[0] - products * counts[1]) <= products, (layer, counts)


@pytest.mark.parametrize("layer", ["conv-5x5-words", "conv-1x1-words"])
@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_words_are_added_up_in_pairs_and_the_others_one_by_one(level: str, layer: str) -> None:
    ratios = set()
    for loop in inner_loops(assembly(layer, level)):
        counts = [sum(name in line for line in loop) for name in ("vpmaddubsw", "vpmaddwd")]
        ratios.add(round(counts[0] / counts[1]))
    assert ratios == {1, 2}


@pytest.mark.parametrize("layer", ["conv-5x5", "conv-1x1"])
@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_tile_is_as_large_as_the_configuration_says(level: str, layer: str) -> None:
    """One dot product for each accumulator in a step of the reduction."""
    from lowgemm import schedules
    from lowgemm.packing import ConvShape

    conv = LAYERS[layer]
    _, channels, height, width = conv.x
    if layer == "conv-1x1":  # lowered as one row of pixels
        height, width = 1, height * width
    shape = ConvShape(1, height, width, channels, conv.out, conv.kernel, padding=conv.pads)
    config = schedules.default_conv_config(shape, LEVELS[level], 1)
    accumulators = config.rows * config.columns * config.vectors
    counts = {sum(map(is_dot, loop)) for loop in inner_loops(assembly(layer, level))}
    assert all(count % accumulators == 0 for count in counts), (counts, config)


@pytest.mark.parametrize(("level", "copies"), [("avx512_vnni", 0), ("avx_vnni", 1), ("avx2", 1)])
def test_sums_are_no_memory_of_the_runtime(level: str, copies: int) -> None:
    """Also those of 512 bits, which are more than TVM keeps by itself: a copy of the image, if any, is all."""
    memory = [line for line in assembly("conv-1x1", level) if "AllocWorkspace@" in line]
    assert len(memory) == copies


@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_no_image_is_copied_by_bytes(level: str) -> None:
    """As LLVM does it with vectors of 48 channels."""
    assert not re.search(r"\bvp(ins|ext)rb\b", "\n".join(assembly("conv-1x1-uneven", level)))


@pytest.mark.parametrize(("level", "writing"), [("avx2", "prefetcht0"), ("avx512", "prefetchw")])
def test_images_and_outputs_are_prefetched_where_they_are_far(level: str, writing: str) -> None:
    for layer, fetched in (("depthwise-3x3-far", True), ("depthwise-3x3-stride-2", False)):
        found = {line.split()[0] for line in assembly(layer, level) if "prefetch" in line}
        assert found == ({writing, "prefetcht1"} if fetched else set()), layer


@pytest.mark.parametrize(
    "level", ["avx512_vnni", "avx_vnni"]
)  # others copy pixels into words first
@pytest.mark.parametrize(("layer", "fetched"), [("conv-1x1-far", True), ("conv-1x1-uneven", False)])
def test_pixels_are_prefetched_where_they_are_far(layer: str, fetched: bool, level: str) -> None:
    found = [line for line in assembly(layer, level) if line.startswith("prefetcht1")]
    assert bool(found) == fetched


@pytest.mark.parametrize("layer", ["conv-1x1", "gemm-pairs", "depthwise-3x3"])
@pytest.mark.parametrize("level", ["avx2", "avx_vnni"])
def test_nothing_bounds_codes_that_packing_bounds(level: str, layer: str) -> None:
    """The layers' bounds are those of the type, and their sums are such that no rounded number leaves int32."""
    text = "\n".join(assembly(layer, level))
    assert "vcvtps2dq" in text and "vpackuswb" in text
    assert not re.search("v(min|max)ps|vp(min|max)u?[bwd]", text)


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_tile_of_fewer_products_is_as_large_as_the_configuration_says(level: str) -> None:
    from lowgemm.packing import ConvShape
    from lowgemm.tiling import default_winograd_config

    _, channels, height, width = FEWER.x
    shape = ConvShape(1, height, width, channels, FEWER.out, FEWER.kernel, padding=FEWER.pads)
    config = default_winograd_config(shape, LEVELS[level], 1, size=4)
    accumulators = config.columns * config.vectors
    counts = {sum(map(is_dot, loop)) for loop in inner_loops(assembly("conv-3x3", level))}
    assert counts == {config.unroll * accumulators}


def spills(layer: str, level: str) -> list[str]:
    """The stores of vectors to the stack within inner loops."""
    store = re.compile(r"^vmov\w+\s+%[xyz]mm\d+, -?\d*\(%r[sb]p\)$")
    return [
        line for loop in inner_loops(assembly(layer, level)) for line in loop if store.match(line)
    ]


@pytest.mark.parametrize(
    "layer", [name for name in LAYERS if name not in ("depthwise-3x3", "depthwise-3x3-far")]
)
@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_accumulators_stay_in_registers(level: str, layer: str) -> None:
    assert spills(layer, level) == []


@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_depthwise_sums_stay_in_registers(level: str) -> None:
    """A finished accumulator may wait in memory for its requantization; a partial sum may not.

    But for tiles of two rows: with sixteen registers, one vector's sums may wait there once, for the second pair of
    rows. One row after the other, which avoids it, reads every word twice and takes 5% longer (Zen 3).
    """
    from lowgemm import schedules
    from lowgemm.packing import ConvShape

    _, channels, height, width = DEPTHWISE.x
    shape = ConvShape(
        1,
        height,
        width,
        channels,
        channels,
        DEPTHWISE.kernel,
        padding=(1, 1, 1, 1),
        groups=channels,
    )
    config = schedules.default_depthwise_config(shape, LEVELS[level])
    packing = schedules.depthwise_packing(shape, LEVELS[level], config.segments)
    tile = config.columns * packing.phases
    waiting = tile if packing.phases > 1 else 0
    assert len(spills("depthwise-3x3", level)) <= 4 * tile + waiting


@pytest.mark.parametrize(("level", "most"), [("avx2", 16), ("avx512", 0)])
def test_depthwise_sums_of_several_pixels_stay_in_registers_too(level: str, most: int) -> None:
    """Half of them are made first, and wait; sixteen are all that there are, of four pixels."""
    # The window lies in the image, or is a copy.
    assert len(spills("depthwise-3x3-far", level)) <= 2 * most
