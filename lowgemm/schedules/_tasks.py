"""Kernel tasks: what a kernel must compute and where, as a value; and the families that have configurations.

A task is what lowering asks a configuration for, what the tuner searches one for, and what its database is keyed by.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, get_type_hints

from lowgemm.packing import ConvShape
from lowgemm.schedules import _spaces
from lowgemm.targets import LEVELS, CpuTarget
from lowgemm.tiling import (
    ConvConfig,
    DepthwiseConfig,
    DirectDepthwiseConfig,
    GroupedConfig,
    WinogradConfig,
    check_conv_config,
    check_depthwise_config,
    check_direct_depthwise_config,
    check_grouped_config,
    check_winograd_config,
    default_conv_config,
    default_depthwise_config,
    default_direct_depthwise_config,
    default_grouped_config,
    default_winograd_config,
)

# By the pixels of a tile each way.
WINOGRAD_FAMILIES = {"qwinograd2d": 2, "qwinograd4x4": 4}
Config = ConvConfig | DepthwiseConfig | DirectDepthwiseConfig | GroupedConfig | WinogradConfig
Shape = ConvShape


@dataclass(frozen=True)
class KernelTask:
    """One kernel to configure: `family` (a key of `FAMILIES`), shape, dtypes, target, and the threads to share it.

    `residual` is the dtype of a tensor that the kernel adds.
    """

    family: str
    shape: Shape
    in_dtype: str
    out_dtype: str
    residual: str | None
    target: CpuTarget
    threads: int

    @property
    def key(self) -> tuple:
        """What decides the configuration: no family uses more of a target than its level has."""
        dtypes = (self.in_dtype, self.out_dtype, self.residual)
        return (
            *(self.family, self.shape, *dtypes),
            *(self.target.level, self.target.summed, self.target.paired, self.threads),
        )

    def __str__(self) -> str:
        s = self.shape
        text = f"{self.family} {s.batch}x{s.height}x{s.width}x{s.in_channels}->{s.out_channels}"
        if s.kernel != (1, 1):
            text += f" {s.kernel[0]}x{s.kernel[1]}"
        if s.strides != (1, 1):
            text += f"/{s.strides[0]}" + (f"x{s.strides[1]}" if len(set(s.strides)) > 1 else "")
        if s.groups not in (1, s.in_channels):
            text += f" groups {s.groups}"
        text += f" {self.in_dtype}" + (" +residual" if self.residual else "")
        text += f" sums of {4 * self.target.summed}" if self.target.summed else ""
        return text + (" in pairs" if self.target.paired else "")


@dataclass(frozen=True)
class Family:
    """What the tuner knows of a kernel family, declared with its schedule.

    `check` raises ValueError for a configuration that the schedule cannot take; `space` yields all that are worth
    measuring, in a fixed order.
    """

    shape: type
    config: type
    default: Callable[[Any, CpuTarget, int], Any]
    check: Callable[[Any, CpuTarget, Any], None]
    space: Callable[[Any, CpuTarget, int], Iterable[Any]]


FAMILIES: dict[str, Family] = {
    "qconv2d": Family(
        ConvShape, ConvConfig, default_conv_config, check_conv_config, _spaces.conv_space
    ),
    "qdepthwise2d": Family(
        ConvShape,
        DepthwiseConfig,
        default_depthwise_config,
        check_depthwise_config,
        _spaces.depthwise_space,
    ),
    "qdepthwise_direct": Family(
        ConvShape,
        DirectDepthwiseConfig,
        default_direct_depthwise_config,
        check_direct_depthwise_config,
        _spaces.direct_depthwise_space,
    ),
    "qgrouped2d": Family(
        ConvShape,
        GroupedConfig,
        default_grouped_config,
        check_grouped_config,
        _spaces.grouped_space,
    ),
    **{
        family: Family(
            ConvShape,
            WinogradConfig,
            partial(default_winograd_config, size=size),
            partial(check_winograd_config, size=size),
            partial(_spaces.winograd_space, size=size),
        )
        for family, size in WINOGRAD_FAMILIES.items()
    },
}


def default_config(task: KernelTask) -> Any:
    """The heuristic choice for `task`, used where nothing was tuned."""
    return FAMILIES[task.family].default(task.shape, task.target, task.threads)


def check_config(task: KernelTask, config: Any) -> None:
    """Refuse, before anything is compiled, a configuration that does not fit the task.

    Raises:
        ValueError: it needs more registers than the target has, does not divide the shape, or is another family's.
    """
    family = FAMILIES[task.family]
    if not isinstance(config, family.config):
        raise ValueError(f"{config} is not a configuration of {task.family}")
    family.check(task.shape, task.target, config)


def config_space(task: KernelTask) -> list[Any]:
    """The configurations of `task` that are worth measuring: valid ones, in a fixed order, the default among them."""
    found = list(FAMILIES[task.family].space(task.shape, task.target, task.threads))
    default = default_config(task)
    return found if default in found else [default, *found]


def task_to_json(task: KernelTask) -> dict[str, Any]:
    """The task as JSON holds it."""
    target = {"level": task.target.level, "features": list(task.target.features)}
    if task.target.summed:
        target["summed"] = task.target.summed
    if task.target.paired:
        target["paired"] = True
    return {
        "family": task.family,
        "shape": asdict(task.shape),
        "in_dtype": task.in_dtype,
        "out_dtype": task.out_dtype,
        "residual": task.residual,
        "target": target,
        "threads": task.threads,
    }


def task_from_json(data: dict[str, Any]) -> KernelTask:
    """The task that `task_to_json` wrote.

    Raises:
        ValueError: it has another form, or names a family or a level that is not known here.
    """
    try:
        family = FAMILIES[data["family"]]
        return KernelTask(
            data["family"],
            _from_json(family.shape, data["shape"]),
            str(data["in_dtype"]),
            str(data["out_dtype"]),
            data["residual"],
            LEVELS[data["target"]["level"]].summing(
                data["target"].get("summed", 0), data["target"].get("paired", False)
            ),
            int(data["threads"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a kernel task: {error}") from error


def config_from_json(task: KernelTask, data: dict[str, Any]) -> Any:
    """The configuration of `task` that was written as a dict of its knobs.

    Raises:
        ValueError: knobs are missing or unknown, or their values do not fit.
    """
    try:
        config = _from_json(FAMILIES[task.family].config, data)
        check_config(task, config)
    except TypeError as error:
        raise ValueError(f"not a configuration of {task.family}: {error}") from error
    return config


def config_to_json(config: Any) -> dict[str, Any]:
    """A configuration as a dict of its knobs."""
    return asdict(config)


def _from_json(kind: type, data: dict[str, Any]) -> Any:
    """A dataclass from a dict of its fields, which may be dataclasses themselves, or tuples (lists in JSON)."""
    hints = get_type_hints(kind)
    if unknown := sorted({*data} - {field.name for field in fields(kind)}):
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            value = _from_json(hints[name], value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
