"""Spaces hold what schedules take; tasks come from models and lists, and go through JSON unchanged."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lowgemm import lower, schedules
from lowgemm.errors import TuningError
from lowgemm.packing import ConvShape
from lowgemm.schedules import ConvConfig, KernelTask
from lowgemm.targets import LEVELS
from lowgemm.tiling import DirectDepthwiseConfig, GroupedConfig
from lowgemm.tune._extract import tasks_of, tasks_of_shapes
from lowgemm.tune._features import features, matrix
from lowgemm.tune._problem import problem

from fake_tuning import conv_task, depthwise_task
from kernels import execute

_SAME = (1, 1, 1, 1)
# Large and small images, one pixel, few and many channels, groups, strides, tails on both axes.
SHAPES = {
    "large": ("qconv2d", ConvShape(1, 56, 56, 64, 64, (3, 3), padding=_SAME)),
    "small": ("qconv2d", ConvShape(1, 7, 7, 512, 512, (3, 3), padding=_SAME)),
    "first-layer": ("qconv2d", ConvShape(1, 224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3))),
    "rows": ("qconv2d", ConvShape(1, 1, 49, 960, 160, (1, 1))),
    "one-pixel": ("qconv2d", ConvShape(1, 1, 1, 2048, 1000, (1, 1))),
    "groups": ("qconv2d", ConvShape(1, 28, 28, 256, 256, (3, 3), padding=_SAME, groups=32)),
    "odd": ("qconv2d", ConvShape(2, 13, 11, 5, 9, (3, 5), (2, 1), (1, 2, 0, 1))),
    "depthwise": (
        "qdepthwise2d",
        ConvShape(1, 56, 56, 144, 144, (3, 3), padding=_SAME, groups=144),
    ),
    "depthwise-odd": ("qdepthwise2d", ConvShape(1, 7, 11, 19, 19, (5, 5), groups=19)),
}


def task_of(name: str, level: str = "avx2", threads: int = 1) -> KernelTask:
    family, shape = SHAPES[name]
    return KernelTask(family, shape, "uint8", "uint8", None, LEVELS[level], threads)


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SHAPES)
def test_spaces_hold_what_schedules_take(name: str, level: str, threads: int) -> None:
    task = task_of(name, level, threads)
    space = schedules.config_space(task)
    assert len({*space}) == len(space) > 1
    assert space == schedules.config_space(task), "always in the same order"
    assert schedules.default_config(task) in space
    for config in space:
        schedules.check_config(task, config)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SHAPES)
def test_features_are_numbers(name: str, level: str) -> None:
    task = task_of(name, level)
    space = schedules.config_space(task)
    values, names = matrix([task] * len(space), space)
    assert values.shape == (len(space), len(names)) and np.isfinite(values).all()
    assert len({tuple(row) for row in values}) == len(space), "no two configurations look alike"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("level", ["avx2", "avx512"])
@pytest.mark.parametrize("family", schedules.WINOGRAD_FAMILIES)
def test_spaces_of_winograd_hold_what_its_schedule_takes(
    family: str, level: str, threads: int
) -> None:
    task = replace(task_of("large", level, threads), family=family)
    space = schedules.config_space(task)
    assert len({*space}) == len(space) > 100
    assert schedules.default_config(task) in space
    values, names = matrix([task] * len(space), space)
    assert values.shape == (len(space), len(names)) and np.isfinite(values).all()
    assert len({tuple(row) for row in values}) == len(space), "no two configurations look alike"
    for config in (space[0], space[-1]):
        text = json.dumps([schedules.task_to_json(task), schedules.config_to_json(config)])
        read_task, read_config = json.loads(text)
        assert (
            schedules.config_from_json(schedules.task_from_json(read_task), read_config) == config
        )


def test_features_of_other_families_are_absent() -> None:
    pair = [conv_task(), depthwise_task()]
    configs = [schedules.default_config(task) for task in pair]
    values, names = matrix(pair, configs)
    for row, task, config in zip(values, pair, configs, strict=True):
        own = features(task, config)
        assert [name in own for name in names] == [*~np.isnan(row)]


@pytest.mark.parametrize("name", SHAPES)
def test_tasks_and_configurations_go_through_json(name: str) -> None:
    task = task_of(name, "avx_vnni", threads=3)
    config = schedules.config_space(task)[-1]
    text = json.dumps([schedules.task_to_json(task), schedules.config_to_json(config)])
    read_task, read_config = json.loads(text)
    assert schedules.task_from_json(read_task) == task
    assert schedules.config_from_json(task, read_config) == config


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 9}, "registers of 16"),
        ({"columns": 1, "vectors": 3}, "3 vectors do not divide 8"),
        ({"lanes": 16}, "vectors of 8 or 8 lanes"),
        ({"block": 5}, "blocks of 5 do not divide 14 rows"),
        ({"order": "columns"}, '"rows" or "panels"'),
        ({"speed": 1}, "ConvConfig has no speed"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(change: dict, reason: str) -> None:
    config = ConvConfig(1, 4, 1, 8, 1, "rows", 1, prefetch=False)
    data = {**schedules.config_to_json(config), **change}
    with pytest.raises(ValueError, match=reason):
        schedules.config_from_json(conv_task(), data)


def test_a_configuration_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a configuration of qconv2d"):
        schedules.check_config(conv_task(), schedules.default_config(depthwise_task()))


_SMALL = ConvShape(1, 6, 7, 16, 24, (5, 5), padding=(2, 2, 2, 2))
_SMALL_DENSE = ConvShape(1, 6, 7, 16, 24, (3, 3), padding=_SAME)
# Of which weights of all sizes have sums that tiles of 4x4 do not compute.
_DEEP_DENSE = ConvShape(1, 5, 6, 160, 16, (3, 3), padding=_SAME)
_SMALL_DEPTHWISE = ConvShape(1, 6, 7, 24, 24, (3, 3), padding=_SAME, groups=24)
_STRIDED_DEPTHWISE = ConvShape(1, 9, 11, 40, 40, (3, 3), (2, 2), _SAME, groups=40)
_GROUPED = ConvShape(1, 6, 7, 40, 40, (3, 3), padding=_SAME, groups=10)
FORMS = {
    "u8": ("qconv2d", _SMALL, "uint8", "uint8", None),
    "s8": ("qconv2d", _SMALL, "int8", "int8", None),
    "float": ("qconv2d", _SMALL, "uint8", "float32", None),
    "residual": ("qconv2d", _SMALL, "uint8", "uint8", "uint8"),
    "residual-s8": ("qconv2d", _SMALL, "uint8", "int8", "int8"),
    "depthwise": ("qdepthwise2d", _SMALL_DEPTHWISE, "uint8", "int8", None),
    "depthwise-direct": ("qdepthwise_direct", _STRIDED_DEPTHWISE, "uint8", "int8", None),
    "grouped": ("qgrouped2d", _GROUPED, "uint8", "int8", None),
    "winograd": ("qwinograd2d", _SMALL_DENSE, "uint8", "uint8", None),
    "winograd-4x4": ("qwinograd4x4", _SMALL_DENSE, "uint8", "uint8", None),
    "winograd-4x4-deep": ("qwinograd4x4", _DEEP_DENSE, "uint8", "uint8", None),
    "batch": ("qconv2d", ConvShape(3, 6, 7, 16, 24, (2, 2)), "uint8", "uint8", None),
}


# Weights decide on sums of 16 bits, and on pairs of words, in dense direct convolutions alone; groups need the former.
_SUMS = [(0, False), (1, False), (1, True), (2, False)]
_SUMS_OF = {"qconv2d": _SUMS, "qgrouped2d": _SUMS[1:2]}
FORMS_AND_SUMS = [
    (form, sums) for form, (family, *_) in FORMS.items() for sums in _SUMS_OF.get(family, _SUMS[:1])
]


def task_in(form: str, threads: int = 1) -> KernelTask:
    family, shape, in_dtype, out_dtype, residual = FORMS[form]
    return KernelTask(family, shape, in_dtype, out_dtype, residual, LEVELS["avx2"], threads)


@pytest.mark.isa("avx2")
@pytest.mark.parametrize(("form", "sums"), FORMS_AND_SUMS)
def test_the_problem_of_a_task_is_that_task_and_its_exact_result(
    form: str, sums: tuple[int, bool]
) -> None:
    task = task_in(form)
    task = replace(task, target=task.target.summing(*sums))
    made = problem(task)
    configs = {task.key: schedules.default_config(task)}
    program = lower.lower(made.graph.copy(), LEVELS["avx2"], 1, configs)
    assert [call.task for call in program.calls if call.task] == [task]
    (found,) = execute(program, task.target, made.inputs).values()
    assert np.array_equal(found, made.expected)
    again = problem(task)
    assert np.array_equal(again.expected, made.expected), "the same at every call"
    if task.out_dtype != "float32":
        assert len(np.unique(made.expected)) > 100, "a wrong kernel must show"


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_the_space_of_direct_depthwise_holds_what_its_schedule_takes(level: str) -> None:
    shape = replace(_STRIDED_DEPTHWISE, in_channels=72, out_channels=72, groups=72)
    task = replace(task_in("depthwise-direct"), shape=shape, target=LEVELS[level])
    space = schedules.config_space(task)
    assert [config.pixels for config in space if not config.copied] == [1, 2, 3, 4, 5, 6], "of six"
    blocks = 3 if level == "avx2" else 2
    assert {config.copied for config in space} == {0, 1, blocks}
    assert schedules.default_config(task) in space
    values, names = matrix([task] * len(space), space)
    assert values.shape == (len(space), len(names)) and np.isfinite(values).all()
    with pytest.raises(ValueError, match="a row has 6 pixels"):
        schedules.check_config(task, DirectDepthwiseConfig(7))
    with pytest.raises(ValueError, match="a tile has 1 to 8 pixels"):
        DirectDepthwiseConfig(9)
    with pytest.raises(ValueError, match="no fewer than 0 blocks are copied"):
        DirectDepthwiseConfig(1, -1)
    with pytest.raises(ValueError, match=f"4 blocks of channels do not divide {blocks}"):
        schedules.check_config(task, DirectDepthwiseConfig(1, 4))
    with pytest.raises(ValueError, match="which fill a vector"):
        schedules.check_config(
            replace(task, target=LEVELS["avx512_vnni"], shape=replace(task.shape, groups=1)),
            space[0],
        )


def test_the_space_of_grouped_kernels_holds_what_they_take() -> None:
    task = task_in("grouped")
    task = replace(task, target=task.target.summing(1))
    space = schedules.config_space(task)
    assert len(space) == 6 and schedules.default_config(task) in space
    values, names = matrix([task] * len(space), space)
    assert values.shape == (len(space), len(names)) and np.isfinite(values).all()
    with pytest.raises(ValueError, match="a tile has at most 3 pixels in 16 registers"):
        schedules.check_config(task, GroupedConfig(4, True))
    with pytest.raises(ValueError, match="a tile has at least one pixel"):
        GroupedConfig(0, True)
    narrow = replace(task, shape=replace(task.shape, width=2))
    with pytest.raises(ValueError, match="a row has 2 pixels"):
        schedules.check_config(narrow, space[-1])
    with pytest.raises(ValueError, match="groups of 2, 4 or 8 channels"):
        schedules.check_config(task_in("grouped"), space[0])


def test_of_two_kernels_the_tuned_one_is_kept() -> None:
    """A database from before a kernel was there still decides."""
    direct = task_in("depthwise-direct")
    other = replace(direct, family="qdepthwise2d")
    graph = problem(direct).graph
    for tuned, taken in (([], direct), ([other], other), ([direct, other], direct)):
        configs = {task.key: schedules.default_config(task) for task in tuned}
        program = lower.lower(graph.copy(), direct.target, 1, configs)
        assert [call.task for call in program.calls if call.task] == [taken]


def test_a_graph_lists_its_tasks() -> None:
    task = task_in("residual", 4)
    levels = [LEVELS["avx2"], LEVELS["avx512"]]
    found = tasks_of(problem(task).graph, levels, 4)
    assert {t.target.level: n for t, n in found.items()} == {"avx2": 1, "avx512": 1}
    assert task in found


def shapes(path: Path, text: str, threads: int = 1) -> Counter[KernelTask]:
    (path / "shapes.txt").write_text(text)
    return tasks_of_shapes(path / "shapes.txt", [LEVELS["avx2"]], threads)


def test_a_list_of_shapes(tmp_path: Path) -> None:
    found = shapes(
        tmp_path,
        """
        # rows columns depth
        gemm 8 32 64  count=3
        gemm 8 32 64
        conv 1 14 14 64 64 kernel=3 pad=1 residual=int8   # like any other
        conv 2 9 8 24 24 kernel=3x5 stride=2 groups=24 out=int8
        conv 1 6 7 16 24 in=int8 out=float32
        """,
    )
    rows = KernelTask(
        "qconv2d", ConvShape(1, 1, 8, 64, 32, (1, 1)), "uint8", "uint8", None, LEVELS["avx2"], 1
    )
    assert found[rows] == 4, "equal lines are one task"
    assert len(found) == 4
    by_family = {task.family: task for task in found}
    depthwise = by_family["qdepthwise2d"]
    assert depthwise.shape == ConvShape(2, 9, 8, 24, 24, (3, 5), (2, 2), groups=24)
    assert depthwise.out_dtype == "int8"
    assert {(t.in_dtype, t.out_dtype, t.residual) for t in found} == {
        ("uint8", "uint8", None),
        ("uint8", "uint8", "int8"),
        ("uint8", "int8", None),
        ("int8", "float32", None),
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("gemm 8 32", 'line 2: expected "gemm ROWS COLUMNS DEPTH" or "conv BATCH'),
        ("pool 1 2 3", "line 2: expected"),
        ("gemm 8 32 x", 'line 2: "x" is not an integer of at least 1'),
        ("gemm 8 32 0", 'line 2: "0" is not an integer of at least 1'),
        ("gemm 8 32 64 kernel=3", "line 2: gemm has no kernel; there are in, out, residual, count"),
        ("conv 1 7 7 8 8 kernel=9", "line 2: the filter does not fit into 7x7"),
        ("conv 1 7 7 8 8 groups=3", "line 2: groups=3 does not divide 8 and 8 channels"),
        ("conv 1 7 7 8 8 out=int16", "line 2: out=int16: expected uint8 or int8 or float32"),
        ("conv 1 7 7 8 8 residual=float32", "line 2: residual=float32: expected uint8 or int8"),
    ],
)
def test_a_line_of_another_form(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(TuningError, match=reason):
        shapes(tmp_path, f"gemm 8 32 64\n{line}\n")


def test_lists_that_name_nothing(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="names no shape"):
        shapes(tmp_path, "# nothing\n")
    with pytest.raises(TuningError, match=r"cannot read shapes from .*missing\.txt"):
        tasks_of_shapes(tmp_path / "missing.txt", [LEVELS["avx2"]], 1)
