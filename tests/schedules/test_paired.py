"""Products of words in pairs give the exact integers, in every configuration and with every output."""

from dataclasses import replace

import numpy as np
import pytest

from lowgemm import lower, packing, schedules
from lowgemm.lower import _convolutions
from lowgemm.packing import ConvPacking, ConvShape, dot_layout
from lowgemm.passes import Quantization
from lowgemm.schedules import ConvConfig, KernelTask
from lowgemm.targets import LEVELS
from lowgemm.tune._problem import problem

import kernels
from conv_check import Conv, check
from isa import isas

WITHOUT_VNNI = ("avx2", "avx512")
KINDS = ("words-in-pairs", "ties")
# Of these: small weights are summed as they lie.
PAIRED = [True, False]
CONVOLUTIONS = {
    "1x1": Conv((1, 36, 7, 9), 32),
    "1x1-ragged": Conv((1, 40, 6, 10), 27),
    "depth-no-multiple-of-4": Conv((1, 37, 6, 7), 16),
    # The copy of a block's rows is shorter than the image's.
    "rows-of-such-depth": Conv((2, 75, 5, 1), 27, pads=(0, 0, 1, 0), group=3),
    "3x3-strided": Conv((1, 16, 9, 12), 32, (3, 3), (2, 2), (1, 1, 1, 1)),
    "3x3-dilated": Conv((1, 32, 9, 10), 16, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2)),
    "groups": Conv((2, 96, 6, 7), 64, (3, 3), pads=(1, 1, 1, 1), group=2),
    "few-pixels": Conv((1, 256, 3, 3), 64),
    "one-pixel": Conv((1, 64), 80),
    "many-rows": Conv((450, 48), 24),
}
SMALL = ConvShape(1, 1, 48, 36, 32, (1, 1))
STRIDED = ConvShape(1, 9, 9, 12, 64, (3, 3), (2, 2), (1, 1, 1, 1))


def task_of(shape: ConvShape, level: str, residual: str | None = None) -> KernelTask:
    target = LEVELS[level].summing(1, paired=True)
    return KernelTask("qconv2d", shape, "uint8", "uint8", residual, target, 1)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the kernels that were lowered have words in pairs; any weight that fits has, however few."""
    found = []
    real = _convolutions._direct

    def direct(context, node, task, macs) -> None:
        found.append(task.target.paired)
        real(context, node, task, macs)

    monkeypatch.setattr(packing, "_SHARE_OF_PAIRS", 0.0)
    monkeypatch.setattr(packing, "_FEWEST_WORDS", 0)
    monkeypatch.setattr(_convolutions, "_direct", direct)
    return found


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("level", isas(*WITHOUT_VNNI))
def test_every_form_of_convolution_is_exact(level: str, case: str, taken: list[bool]) -> None:
    check(CONVOLUTIONS[case], level, kinds=KINDS)
    assert taken == PAIRED


@pytest.mark.parametrize(
    ("in_dtype", "out_dtype", "residual", "hard_swish"),
    [
        ("int8", "int8", None, False),
        ("int8", "float32", None, False),
        ("uint8", "int8", "uint8", False),
        ("uint8", "uint8", None, True),
    ],
)
@pytest.mark.parametrize("case", ["1x1", "1x1-ragged", "3x3-strided", "many-rows"])
@pytest.mark.parametrize("level", isas(*WITHOUT_VNNI))
def test_every_output_is_exact(
    level: str,
    case: str,
    in_dtype: str,
    out_dtype: str,
    residual: str | None,
    hard_swish: bool,
    taken: list[bool],
) -> None:
    forms = {"residual": residual, "hard_swish": hard_swish}
    check(CONVOLUTIONS[case], level, in_dtype, out_dtype, kinds=KINDS, **forms)
    assert taken == PAIRED


@pytest.mark.parametrize("shape", [SMALL, STRIDED], ids=["1x1", "3x3-strided"])
@pytest.mark.parametrize("level", isas(*WITHOUT_VNNI))
def test_every_configuration_is_exact(level: str, shape: ConvShape) -> None:
    task = task_of(shape, level)
    made = problem(task)
    space = schedules.config_space(task)
    assert {config.order for config in space} == {"rows", "panels"}
    assert {config.prefetch for config in space} == {True, False}
    assert {config.unroll for config in space} == {1}
    # All tiles, with the blocks of each in turn.
    by_tile: dict[tuple, list[ConvConfig]] = {}
    for config in space:
        by_tile.setdefault((config.rows, config.columns, config.vectors, config.lanes), []).append(
            config
        )
    for number, configs in enumerate(by_tile.values()):
        config = configs[number % len(configs)]
        program = lower.lower(made.graph.copy(), LEVELS[level], 1, {task.key: config})
        assert [call.task for call in program.calls if call.task] == [task]
        (found,) = kernels.execute(program, task.target, made.inputs).values()
        assert np.array_equal(found, made.expected), config


def test_steps_of_words_in_pairs_are_not_unrolled() -> None:
    task = task_of(SMALL, "avx2")
    config = replace(schedules.default_config(task), unroll=3)
    schedules.check_config(replace(task, target=task.target.summing(1)), config)
    with pytest.raises(ValueError, match="in pairs are not unrolled"):
        schedules.check_config(task, config)


@pytest.mark.parametrize(
    ("most", "sums"),
    [(127, (0, False)), (64, (1, False)), (48, (1, True)), (32, (2, False))],
)
def test_weights_decide(most: int, sums: tuple[int, bool]) -> None:
    """Large words alone, with as many small ones, and small enough to be paired as they lie."""
    conv = Conv((1, 64, 14, 14), 32)
    weight = np.full(conv.w, most, np.int8)
    if sums[1]:
        weight[:, np.arange(64) // 8 % 2 == 0] = 16
    params = Quantization(1.0, 0, "uint8")
    bias, scale = np.zeros(conv.out, np.int32), np.ones(conv.out, np.float32)
    node = conv.node("c", weight, bias, scale, params, params, low=0, high=255)
    x = np.zeros(conv.x, np.uint8)
    graph = kernels.graph_of([node], {"c/x": x}, {"c/y": (conv.out_shape, "uint8")})
    for level, found in (("avx2", sums), ("avx512", sums), ("avx_vnni", (0, False))):
        (call,) = (call for call in lower.lower(graph.copy(), LEVELS[level], 1).calls if call.task)
        assert call.task
        assert (call.task.target.summed, call.task.target.paired) == found


def test_few_pairs_are_left_alone() -> None:
    """Three words of eight that are small: six of them are in pairs. Two: four are."""
    for small, paired in ((3, True), (2, False)):
        weight = np.full((16, 32, 1, 1), 56, np.int8)
        weight[:, : 4 * small] = 8
        shape = ConvShape(1, 7, 7, 32, 16, (1, 1))
        cut = ConvPacking.of(shape, dot_layout(LEVELS["avx2"].summing(1, paired=True), 8))
        assert cut.pairs_pay(cut.pack(weight), 2) == paired
