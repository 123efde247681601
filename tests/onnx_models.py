"""Small ONNX models for tests, and running them in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

Arrays = dict[str, np.ndarray]


def node(op: str, inputs: str, outputs: str, domain: str = "", **attrs: Any) -> onnx.NodeProto:
    """A node; tensors are separated by spaces, and "-" is an absent one."""
    names = [[("" if t == "-" else t) for t in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, name=f"the_{op}_{names[1][0]}", domain=domain, **attrs)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray | tuple[str, Sequence[int | str | None]]],
    outputs: str,
    constants: Mapping[str, Any] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """A model; inputs are typed by arrays or (dtype, shape), outputs are inferred."""
    infos = []
    for name, given in inputs.items():
        dtype, shape = (given.dtype, given.shape) if isinstance(given, np.ndarray) else given
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        infos.append(helper.make_tensor_value_info(name, element, shape))
    initializers = [
        onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "test",
        infos,
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        initializers,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run_ort(proto: onnx.ModelProto, inputs: Arrays, fetch: Sequence[str] = ()) -> Arrays:
    """The outputs, and tensors `fetch`, as ONNX Runtime computes them operator by operator.

    Without its optimizations: those replace DequantizeLinear -> Conv -> QuantizeLinear by kernels
    whose 16-bit sums saturate on CPUs without VNNI.
    """
    present = {value.name for value in proto.graph.output}
    extended = onnx.ModelProto()
    extended.CopyFrom(proto)
    extended.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in fetch if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        extended.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    results: Any = session.run(names, inputs)
    return dict(zip(names, results, strict=True))
