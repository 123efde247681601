"""The engines that run whole models, behind one interface."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np

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
    slower; that is for references, the timed sessions keep the default.
    """

    def __init__(self, model: Path, threads: int, exact: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
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
    """OpenVINO's CPU plugin in its latency mode, at the precision that it chooses by itself."""

    def __init__(self, model: Path, threads: int) -> None:
        import openvino

        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(model), "CPU", config)
        self._request = compiled.create_infer_request()

    def run(self, inputs: Arrays) -> object:
        return self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)

    def outputs(self, inputs: Arrays) -> list[np.ndarray]:
        return [np.array(value) for value in self._request.infer(dict(inputs)).values()]


PEERS: dict[str, type[OnnxRuntime] | type[OpenVino]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}
