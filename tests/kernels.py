"""Running lowered programs in this process, and data that is hard on integer kernels."""

from collections.abc import Callable

import numpy as np
import tvm

from lowgemm import codegen, lower
from lowgemm.artifact.objects import compile_kernels
from lowgemm.graph import Graph, Node, TensorType
from lowgemm.targets import LEVELS, CpuTarget

import emulated

Arrays = dict[str, np.ndarray]

# Around every buffer; a kernel that writes past an end changes them.
_CANARY = 64
_FILL = 0xA5


class _Buffer:
    """Memory between canaries, aligned as the runtime's arena is, full of a pattern until written."""

    def __init__(self, size: int) -> None:
        raw = np.full(size + 2 * _CANARY + 64, _FILL, np.uint8)
        start = -raw.ctypes.data % 64
        self._all = raw[start : start + size + 2 * _CANARY]
        self.bytes = self._all[_CANARY : _CANARY + size]

    def view(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return self.bytes.view(dtype).reshape(shape)

    def check(self, name: str) -> None:
        before, after = self._all[:_CANARY], self._all[_CANARY + self.bytes.size :]
        assert (before == _FILL).all() and (after == _FILL).all(), f"written outside of {name}"


def _compiled(module: tvm.IRModule, target: CpuTarget) -> Callable[..., None]:
    """`call(symbol, *arrays)` of the functions of a module."""
    compiled = compile_kernels(module, codegen.llvm_target(target))
    return lambda symbol, *arrays: compiled[symbol](*map(tvm.runtime.from_dlpack, arrays))


def execute(program: lower.Program, target: CpuTarget, inputs: Arrays) -> Arrays:
    """Compile a program for `target` and run its calls in order; the outputs by their names."""
    used = {call.symbol for call in program.calls}
    module = tvm.IRModule({name: func for name, func in program.kernels.items() if name in used})
    function = (
        _compiled(module, target)
        if emulated.current is None
        else emulated.functions(module, target)
    )
    buffers: dict[str, _Buffer] = {}

    def buffer(name: str) -> _Buffer:
        if name not in buffers:
            constant = program.constants.get(name)
            size = constant.nbytes if constant is not None else program.tensors[name].nbytes
            buffers[name] = _Buffer(size)
            if constant is not None:
                buffers[name].view(constant.shape, constant.dtype.name)[...] = constant
        return buffers[name]

    for name, value in inputs.items():
        buffer(name).view(value.shape, value.dtype.name)[...] = value
    for call in program.calls:
        views = [buffer(arg.name).view(arg.shape, arg.dtype) for arg in call.args]
        function(call.symbol, *views)
        for arg in call.args:
            buffer(arg.name).check(f"{arg.name} ({call.kernel})")
    results = {}
    for name in program.outputs:
        type_ = program.tensors[name]
        results[name] = buffer(program.resolve(name)).view(type_.shape, type_.dtype).copy()
    return results


def run(graph: Graph, level: str | CpuTarget, inputs: Arrays, threads: int = 1) -> Arrays:
    """Lower a fused graph for a level and run it; the outputs by the names that `graph` gives them."""
    target = LEVELS[level] if isinstance(level, str) else level
    program = lower.lower(graph.copy(), target, threads)
    results = execute(program, target, inputs)
    return dict(zip(graph.outputs, (results[name] for name in program.outputs), strict=True))


def graph_of(
    nodes: list[Node], inputs: Arrays, outputs: dict[str, tuple[tuple[int, ...], str]]
) -> Graph:
    """A graph of fused nodes whose tensors are all inputs or outputs."""
    types = {name: TensorType.of(value) for name, value in inputs.items()}
    types.update({name: TensorType(shape, dtype) for name, (shape, dtype) in outputs.items()})
    return Graph("test", list(inputs), list(outputs), nodes, types)


def full_range(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Every value of an integer type, equally likely."""
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _random(rng, x_shape, dtype, w_shape):
    return full_range(rng, x_shape, dtype), full_range(rng, w_shape, "int8")


def _extreme(rng, x_shape, dtype, w_shape):
    """255 * -128 everywhere: the largest sums that there are."""
    del rng
    return np.full(x_shape, np.iinfo(dtype).max, dtype), np.full(w_shape, -128, np.int8)


def _saturating(rng, x_shape, dtype, w_shape):
    """Neighbours 255 * 127 + 255 * 127, which do not fit the 16 bits of vpmaddubsw; few signs change."""
    limits = np.iinfo(dtype)
    x = np.where(rng.random(x_shape) < 0.9, limits.max, limits.min).astype(dtype)
    return x, np.where(rng.random(w_shape) < 0.9, 127, -128).astype(np.int8)


def _alternating(rng, x_shape, dtype, w_shape):
    """Signs that change from element to element: a swapped pair of operands shows."""
    del rng
    limits = np.iinfo(dtype)
    x = np.where(np.indices(x_shape).sum(0) % 2, limits.max, limits.min).astype(dtype)
    return x, np.where(np.indices(w_shape).sum(0) % 2, 127, -128).astype(np.int8)


def _ties(rng, x_shape, dtype, w_shape):
    """Small sums, which a scale of 1/2 brings to x.5 half of the time."""
    centre = 127 if dtype == "uint8" else 0
    x = rng.integers(centre - 2, centre + 2, x_shape, endpoint=True).astype(dtype)
    return x, rng.integers(-2, 2, w_shape, endpoint=True).astype(np.int8)


def _limit_of(summed: int):
    """Any codes and weights of which 16 bits hold the products of `summed` pairs, most of them the largest."""

    def data(rng, x_shape, dtype, w_shape):
        most = 64 // summed
        x = full_range(rng, x_shape, dtype)
        x[rng.random(x_shape) < 0.7] = np.iinfo(dtype).max
        w = rng.integers(-most, most, w_shape, np.int8, endpoint=True)
        w[rng.random(w_shape) < 0.7] = most
        return x, w if rng.random() < 0.5 else -w

    return data


def _words_in_pairs(rng, x_shape, dtype, w_shape):
    """Words of four channels, large ones and small ones: 16 bits hold the products of one of each, exactly."""
    x = full_range(rng, x_shape, dtype)
    x[rng.random(x_shape) < 0.7] = np.iinfo(dtype).max
    columns = w_shape[-1] if len(w_shape) > 2 else 1
    word = (np.arange(columns)[:, None] * w_shape[1] + np.arange(w_shape[1])) // 4
    # They are not equally many, and the first two do not fit each other.
    large = rng.permutation(np.arange(word.max() + 1) < 0.55 * word.max())
    large[:2] = True
    large = large[word].T.reshape(
        w_shape[1], *[1] * (len(w_shape) - 3), *[columns] * (len(w_shape) > 2)
    )
    most = np.broadcast_to(np.where(large, 52, 12), w_shape)
    w = rng.integers(-most, most, dtype=np.int8, endpoint=True)
    w = np.where(rng.random(w_shape) < 0.7, most, w).astype(np.int8)
    return x, w if rng.random() < 0.5 else -w


# name -> (rng, x shape, x dtype, w shape) -> x, w
HARD_DATA: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "random": _random,
    "extreme": _extreme,
    "saturating": _saturating,
    "alternating": _alternating,
    "ties": _ties,
    "pairs-at-the-limit": _limit_of(1),
    "pairs-of-pairs-at-the-limit": _limit_of(2),
    "words-in-pairs": _words_in_pairs,
}
