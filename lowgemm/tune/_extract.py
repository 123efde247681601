"""The tasks of a model, or of a list of shapes, each once, with how many kernels have it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lowgemm import lower
from lowgemm.errors import TuningError
from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes import Quantization
from lowgemm.schedules import KernelTask
from lowgemm.targets import CpuTarget
from lowgemm.tune._problem import can_pose

_CONV_KEYS = ("kernel", "stride", "pad", "dilation", "groups")
_KEYS = ("in", "out", "residual", "count")
_DTYPES = ("uint8", "int8")
# Of a shape nothing is known but that its weights may be any.
_WEIGHT = np.int8(127)


def tasks_of(graph: Graph, levels: Sequence[CpuTarget], threads: int) -> Counter[KernelTask]:
    """The tasks of a fused graph for each level, as far as they can be measured alone."""
    found: Counter[KernelTask] = Counter()
    for level in levels:
        program = lower.lower(graph.copy(), level, threads)
        tasks = (call.task for call in program.calls if call.task is not None)
        found.update(task for task in tasks if can_pose(task))
    return found


def tasks_of_shapes(path: Path, levels: Sequence[CpuTarget], threads: int) -> Counter[KernelTask]:
    """The tasks of the file at `path`, one kernel a line.

        gemm ROWS COLUMNS DEPTH
        conv BATCH HEIGHT WIDTH IN_CHANNELS OUT_CHANNELS [kernel=3x3] [stride=1] [pad=1] [dilation=1] [groups=1]

    and for both `in`, `out` (uint8, int8; out also float32), `residual` (the dtype of what is added) and `count` (how
    many kernels there are). A "#" begins a comment.

    Raises:
        TuningError: the file cannot be read, or a line has another form.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"cannot read shapes from {path}: {error}") from error
    found: Counter[KernelTask] = Counter()
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            graph, count = _graph(words)
        except ValueError as error:
            raise TuningError(f"{path}, line {number}: {error}") from error
        for task, times in tasks_of(graph, levels, threads).items():
            found[task] += times * count
    if not found:
        raise TuningError(f"{path} names no shape")
    return found


def _graph(words: list[str]) -> tuple[Graph, int]:
    """A model of one operator from a line of a file of shapes, and its count."""
    kind, *rest = words
    sizes = [_integer(word) for word in rest if "=" not in word]
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    if kind == "gemm" and len(sizes) == 3:
        allowed = _KEYS
    elif kind == "conv" and len(sizes) == 5:
        allowed = (*_CONV_KEYS, *_KEYS)
    else:
        raise ValueError(
            'expected "gemm ROWS COLUMNS DEPTH" or "conv BATCH HEIGHT WIDTH IN_CHANNELS '
            f'OUT_CHANNELS", not "{" ".join(words)}"'
        )
    if unknown := [key for key in options if key not in allowed]:
        raise ValueError(f"{kind} has no {unknown[0]}; there are {', '.join(allowed)}")
    attrs, x, y = _gemm(sizes) if kind == "gemm" else _conv(sizes, options)
    return _model(attrs, x, y, options), _integer(options.get("count", "1"))


def _gemm(sizes: list[int]) -> tuple[dict, tuple[int, ...], tuple[int, ...]]:
    rows, columns, depth = sizes
    attrs = {"gemm": True, "weight": np.full((columns, depth, 1, 1), _WEIGHT)}
    return attrs, (rows, depth), (rows, columns)


def _conv(
    sizes: list[int], options: dict[str, str]
) -> tuple[dict, tuple[int, ...], tuple[int, ...]]:
    batch, height, width, channels, outputs = sizes
    kernel = _pair(options.get("kernel", "1"))
    stride, dilation = _pair(options.get("stride", "1")), _pair(options.get("dilation", "1"))
    pad = _integer(options.get("pad", "0"), least=0)
    groups = _integer(options.get("groups", "1"))
    if channels % groups or outputs % groups:
        raise ValueError(f"groups={groups} does not divide {channels} and {outputs} channels")
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    extents = [
        (n + 2 * pad - span) // s + 1
        for n, span, s in zip((height, width), spans, stride, strict=True)
    ]
    if min(extents) < 1:
        raise ValueError(f"the filter does not fit into {height}x{width}")
    attrs = {
        "gemm": False,
        "weight": np.full((outputs, channels // groups, *kernel), _WEIGHT),
        "strides": stride,
        "pads": (pad,) * 4,
        "dilations": dilation,
        "group": groups,
    }
    return attrs, (batch, channels, height, width), (batch, outputs, *extents)


def _model(attrs: dict, x: tuple[int, ...], y: tuple[int, ...], options: dict[str, str]) -> Graph:
    in_dtype, out_dtype = options.get("in", "uint8"), options.get("out", "uint8")
    residual = options.get("residual")
    for key, value, allowed in (
        ("in", in_dtype, _DTYPES),
        ("out", out_dtype, _DTYPES if residual else (*_DTYPES, "float32")),
        ("residual", residual or "uint8", _DTYPES),
    ):
        if value not in allowed:
            raise ValueError(f"{key}={value}: expected {' or '.join(allowed)}")
    outputs = attrs["weight"].shape[0]
    attrs.update(bias=np.zeros(outputs, np.int32), scale=np.ones(outputs, np.float32), out=None)
    attrs["in"] = Quantization(1.0, 0, in_dtype)
    inputs = {"x": TensorType(x, in_dtype)}
    if out_dtype != "float32":
        middle = Quantization(1.0, 0, "uint8" if residual else out_dtype)
        attrs.update(out=middle, low=middle.range[0], high=middle.range[1])
    if residual:
        inputs["other"] = TensorType(y, residual)
        out = Quantization(1.0, 0, out_dtype)
        pair = (attrs["out"], Quantization(1.0, 0, residual))
        attrs["add"] = {"in": pair, "residual_first": False, "out": out, "low": 0, "high": 1}
    node = Node("QConv", list(inputs), ["y"], attrs, "shape")
    return Graph("shape", list(inputs), ["y"], [node], {**inputs, "y": TensorType(y, out_dtype)})


def _integer(text: str, least: int = 1) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ValueError(f'"{text}" is not an integer of at least {least}')
    return value


def _pair(text: str) -> tuple[int, int]:
    """ "3" or "3x5"."""
    first, _, second = text.partition("x")
    return _integer(first), _integer(second or first)
