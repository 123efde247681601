"""The engines that run whole models, behind one interface."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lowgemm.bench.timing import from_python

Arrays = Mapping[str, np.ndarray]


class Engine(ABC):
    """A model loaded and ready: `run` is what is timed, `outputs` what is checked."""

    @abstractmethod
    def run(self, inputs: Arrays) -> object: ...

    @abstractmethod
    def outputs(self, inputs: Arrays) -> list[np.ndarray]:
        """The model's outputs, in its order."""


class Lowgemm(Engine):
    """A library made by lowgemm."""

    def __init__(self, library: Path, threads: int | None) -> None:
        import lowgemm

        self._net = lowgemm.load(library, threads=threads)

    def run(self, inputs: Arrays) -> object:
        return self._net(dict(inputs))

    def outputs(self, inputs: Arrays) -> list[np.ndarray]:
        return list(self._net(dict(inputs)).values())


class OnnxRuntime(Engine):
    """ONNX Runtime's CPU provider.

    Without VNNI it multiplies uint8 by int8 with vpmaddubsw, whose 16-bit sums saturate: fast, and
    on some models wrong. `exact` makes it turn the weights into uint8 first, which is right and
    slower; that is for references, the timed sessions keep the default. Without `joined` every
    operator is computed as the file has it, which is for references, too.
    """

    def __init__(self, model: Path, threads: int, exact: bool = False, joined: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not joined:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Arrays) -> object:
        return self._session.run(None, dict(inputs))

    def outputs(self, inputs: Arrays) -> list[np.ndarray]:
        return [np.asarray(value) for value in self._session.run(None, dict(inputs))]


class OpenVino(Engine):
    """OpenVINO's CPU plugin in its latency mode, at the precision that it chooses by itself.

    Inputs with open sizes get those of `shapes`.
    """

    def __init__(
        self, model: Path, threads: int, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
        import openvino

        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        read = core.read_model(str(model))
        if shapes:
            read.reshape({name: list(shape) for name, shape in shapes.items()})
        self._request = core.compile_model(read, "CPU", config).create_infer_request()

    def run(self, inputs: Arrays) -> object:
        return self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)

    def outputs(self, inputs: Arrays) -> list[np.ndarray]:
        return [np.array(value) for value in self._request.infer(dict(inputs)).values()]


# By name: an ONNX file, threads, and the inputs' shapes -> the engine.
PEERS: dict[str, Callable[[Path, int, Mapping[str, tuple[int, ...]]], Engine]] = {
    "onnxruntime": lambda model, threads, shapes: OnnxRuntime(model, threads),
    "openvino": OpenVino,
}


def installed(peer: str) -> bool:
    """Whether the package of a peer is there."""
    return importlib.util.find_spec(peer) is not None


class ModelContestant:
    """An engine with its inputs: `output` is that of all samples, flattened; the first one is what is timed."""

    def __init__(self, engine: Engine, samples: Sequence[Arrays]) -> None:
        self._engine, self._samples = engine, samples
        self._turn = from_python(partial(engine.run, samples[0]))

    def output(self) -> np.ndarray:
        return all_outputs(self._engine, self._samples)

    def __call__(self, runs: int) -> list[float]:
        return self._turn(runs)

    def close(self) -> None:
        """Engines end with their last reference."""
        del self._engine, self._turn


def all_outputs(engine: Engine, samples: Sequence[Arrays]) -> np.ndarray:
    """Every output of every sample, one after the other, float64."""
    outputs = [np.ravel(value) for inputs in samples for value in engine.outputs(inputs)]
    return np.concatenate(outputs).astype(np.float64)
