"""Every operator: importing, computing and writing it agree with ONNX Runtime."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from lowgemm.frontend import load_onnx, to_onnx
from lowgemm.frontend._registry import REWRITERS
from lowgemm.reference import run_graph

import onnx_models

# Both sides round to float32; sums in float32 (ONNX Runtime) and in float64 (ours) differ by some
# units in the last place of the largest term.
RELATIVE = 2e-5
ABSOLUTE = 2e-6


@dataclass
class Case:
    """One node: `shapes` are the shapes of its float inputs a, b, ..., `constants` follow them."""

    op: str
    shapes: list[tuple[int, ...]]
    attrs: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    outputs: str = "y"
    low: float = -3.0
    high: float = 3.0
    dtype: str = "float32"
    becomes: str | None = None

    def __str__(self) -> str:
        extra = ",".join(f"{key}={value}" for key, value in self.attrs.items())
        return f"{self.op}-{self.opset}-{'x'.join(map(str, self.shapes[0]))}-{extra}"


def ints(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


def floats(*items: float) -> np.ndarray:
    return np.array(items, np.float32)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


IMAGE = (2, 4, 9, 7)

UNARY = [
    Case(op, [(3, 5, 2)])
    for op in (
        *("Abs", "Atan", "Ceil", "Cos", "Elu", "Celu", "Erf", "Exp", "Floor", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Reciprocal", "Relu", "Round"),
        *("Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Cosh", "Asinh", "Softplus", "Softsign"),
        *("Tan", "Tanh", "ThresholdedRelu", "Gelu"),
    )
]
ATTRIBUTES = [
    Case("Log", [(3, 4)], low=0.1),
    Case("Sqrt", [(3, 4)], low=0.0),
    Case("Acosh", [(3, 4)], low=1.0),
    Case("Acos", [(3, 4)], low=-1.0, high=1.0),
    Case("Asin", [(3, 4)], low=-1.0, high=1.0),
    Case("Atanh", [(3, 4)], low=-0.9, high=0.9),
    Case("Gelu", [(3, 4)], {"approximate": "tanh"}),
    Case("HardSigmoid", [(3, 4)], {"alpha": 1 / 6, "beta": 0.5}),
    Case("LeakyRelu", [(3, 4)], {"alpha": 0.3}),
    Case("Swish", [(3, 4)], {"alpha": 1.0}, opset=24, becomes="Silu"),
    Case("Swish", [(3, 4)], {"alpha": 1.5}, opset=24),
    Case("Clip", [(3, 4)], {"min": -1.0, "max": 2.0}, opset=10),
    Case("Clip", [(3, 4)], {"min": 0.0}, opset=6 + 1, becomes="Relu"),
    Case("Clip", [(3, 4)], constants={"low": np.float32(-1), "high": np.float32(1)}),
    Case("Clip", [(3, 4)], constants={"-": None, "high": np.float32(1)}),
    Case("Clip", [(3, 4), (), ()]),
    Case("PRelu", [(2, 3, 4), (3, 1)]),
    Case("Softmax", [(2, 3, 4)], {"axis": 1}, opset=11),
    Case("Softmax", [(2, 3, 4)], {"axis": 1}),
    Case("Softmax", [(2, 3, 4)], opset=9),
    Case("LogSoftmax", [(2, 3, 4)], {"axis": -1}),
    Case("Cast", [(3, 4)], {"to": 6}, becomes="Cast"),
    Case("CastLike", [(3, 4)], constants={"t": np.int32(0)}, becomes="Cast"),
    Case("IsNaN", [(3, 4)]),
    Case("IsInf", [(3, 4)]),
]
BINARY = [
    *(Case(op, [(2, 3, 4), (3, 1)]) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max")),
    *(Case(op, [(2, 3), (2, 3)]) for op in ("Equal", "Greater", "Less", "GreaterOrEqual")),
    Case("LessOrEqual", [(2, 3), (3,)]),
    Case("Pow", [(2, 3), (3,)], low=0.1),
    Case("Mod", [(2, 3), (3,)], {"fmod": 1}),
    Case("Div", [(4, 5), (4, 5)], dtype="int32", low=1, high=9),
    Case("Mod", [(4, 5), (4, 5)], dtype="int32", low=1, high=9),
    Case("Max", [(2, 3), (3,), (2, 1)]),
    Case("Sum", [(2, 3), (3,), (2, 1)]),
    Case("Mean", [(2, 3), (3,), (2, 1)]),
    Case("MatMul", [(2, 3, 4), (2, 4, 5)]),
    Case("MatMul", [(3, 4)], constants={"w": normal(4, 5)}, becomes="Gemm"),
    Case("Gemm", [(3, 4), (4, 5), (3, 5)]),
    Case("Gemm", [(4, 3)], {"transA": 1, "alpha": 0.5}, {"w": normal(4, 5), "c": normal(5)}),
    Case("Gemm", [(3, 4)], {"transB": 1, "beta": 2.0}, {"w": normal(5, 4), "c": normal(1, 5)}),
    Case("Gemm", [(3, 4)], {"transB": 1}, {"w": normal(5, 4), "c": normal(1)}),
    Case("Gemm", [(3, 4)], {"transB": 1}, {"w": normal(5, 4)}, becomes="Gemm"),
]
REDUCTIONS = [
    *(
        Case(op, [(2, 3, 4)], {"axes": [1, -1], "keepdims": 0}, opset=11, low=0.1)
        for op in (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
            *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        )
    ),
    Case("ReduceSum", [(2, 3, 4)], constants={"axes": ints(1)}),
    Case("ReduceMean", [(2, 3, 4)]),
    Case("ReduceMean", [IMAGE], constants={"axes": ints(2, 3)}, becomes="GlobalAveragePool"),
    Case("ReduceMax", [IMAGE], constants={"axes": ints(-1, -2)}, becomes="GlobalMaxPool"),
    Case("ArgMax", [(3, 5)], {"axis": -1}),
    Case("ArgMin", [(3, 5)], {"axis": 0, "keepdims": 0, "select_last_index": 1}),
    Case("LayerNormalization", [(2, 3, 4)], constants={"s": normal(4), "b": normal(4)}),
    Case("LpNormalization", [(2, 3, 4)], {"axis": 1}),
    Case("InstanceNormalization", [IMAGE], constants={"s": normal(4), "b": normal(4)}),
    Case("LRN", [(1, 6, 3, 3)], {"size": 3, "alpha": 0.1}),
    Case("MeanVarianceNormalization", [IMAGE]),
]
MOVEMENT = [
    Case("Reshape", [(2, 3, 4)], constants={"shape": ints(0, -1)}),
    Case("Flatten", [(2, 3, 4)], {"axis": 2}, becomes="Reshape"),
    Case("Squeeze", [(1, 3, 1)], {"axes": [0]}, opset=11),
    Case("Squeeze", [(1, 3, 1)], constants={"axes": ints(-1)}),
    Case("Squeeze", [(1, 3, 1)]),
    Case("Unsqueeze", [(2, 3)], {"axes": [0, 3]}, opset=11),
    Case("Unsqueeze", [(2, 3)], constants={"axes": ints(-1)}),
    Case("Transpose", [(2, 3, 4)], {"perm": [1, 2, 0]}),
    Case("Transpose", [(2, 3, 4)]),
    Case("Concat", [(2, 3), (2, 1), (2, 4)], {"axis": -1}),
    Case("Split", [(2, 6)], {"axis": 1, "split": [1, 2, 3]}, opset=11, outputs="y z w"),
    Case("Split", [(2, 7)], {"axis": 1, "num_outputs": 3}, outputs="y z w"),
    Case("Split", [(6, 2)], constants={"split": ints(4, 2)}, outputs="y z"),
    Case("Slice", [(5, 6)], {"starts": [1, -4], "ends": [100, -1], "axes": [0, 1]}, opset=9),
    Case(
        "Slice",
        [(5, 6)],
        constants={"s": ints(4, 5), "e": ints(-100, 0), "x": ints(0, -1), "t": ints(-1, -2)},
    ),
    Case("Gather", [(4, 5)], {"axis": 1}, {"i": ints(3, 0, -1)}),
    Case("Gather", [(4, 5)], {"axis": 1}, {"i": np.array(2)}, becomes="Reshape"),
    Case("Gather", [(4, 5)], {"axis": 0}, {"i": ints(1, 2)}, becomes="Slice"),
    Case("Expand", [(3, 1)], constants={"shape": ints(2, 1, 4)}),
    Case("Tile", [(2, 3)], constants={"repeats": ints(2, 2)}),
    Case("Pad", [(2, 3)], {"pads": [0, 1, 2, 0], "value": 1.5}, opset=9),
    Case("Pad", [(2, 3)], constants={"p": ints(0, 1, 2, 0)}),
    Case("Pad", [(2, 3)], constants={"p": ints(1, -1), "v": np.float32(2), "axes": ints(1)}),
    Case("Pad", [(4, 5)], {"mode": "reflect"}, {"p": ints(1, 2, 0, 1)}),
    Case("Pad", [(4, 5)], {"mode": "edge"}, {"p": ints(1, 2, 0, 1)}),
    Case("DepthToSpace", [(1, 8, 2, 3)], {"blocksize": 2}),
    Case("DepthToSpace", [(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", [(1, 2, 4, 6)], {"blocksize": 2}),
    Case("Where", [(2, 3)], constants={"t": normal(2, 3), "e": normal(3)}, dtype="bool"),
    *(Case(op, [(2, 3), (2, 3)], dtype="bool") for op in ("And", "Or", "Xor")),
    Case("Not", [(2, 3)], dtype="bool"),
    Case("Dropout", [(2, 3)], becomes="Identity"),
]
WINDOWS = [
    Case("Conv", [IMAGE], constants={"w": normal(6, 4, 3, 3), "b": normal(6)}),
    Case(
        "Conv",
        [IMAGE],
        {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "group": 2},
        {"w": normal(6, 2, 3, 2)},
    ),
    Case("Conv", [IMAGE], {"group": 4, "auto_pad": "SAME_UPPER"}, {"w": normal(8, 1, 4, 3)}),
    Case("Conv", [IMAGE], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, {"w": normal(6, 4, 3, 3)}),
    Case("Conv", [IMAGE], {"auto_pad": "VALID"}, {"w": normal(6, 4, 3, 3)}),
    Case("Conv", [(2, 4, 11)], {"strides": [2], "pads": [1, 1]}, {"w": normal(3, 4, 3)}),
    Case("Conv", [(1, 2, 4, 5, 6)], {"pads": [1] * 6}, {"w": normal(3, 2, 3, 3, 3)}),
    Case("ConvTranspose", [IMAGE], {"strides": [2, 2]}, {"w": normal(4, 3, 2, 2), "b": normal(3)}),
    Case(
        "ConvTranspose",
        [IMAGE],
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2], "group": 2},
        {"w": normal(4, 3, 3, 3)},
    ),
    Case(
        "ConvTranspose",
        [IMAGE],
        {"strides": [2, 2], "output_shape": [17, 14]},
        {"w": normal(4, 3, 3, 3)},
    ),
    Case(
        "ConvTranspose",
        [IMAGE],
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"w": normal(4, 3, 3, 3)},
    ),
    Case("MaxPool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    Case("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case(
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 2]},
    ),
    Case("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Case(
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    ),
    Case("GlobalAveragePool", [IMAGE]),
    Case("GlobalMaxPool", [IMAGE]),
    Case(
        "BatchNormalization",
        [IMAGE],
        constants={"s": normal(4), "b": normal(4), "m": normal(4), "v": abs(normal(4))},
        becomes="Mul",
    ),
    Case("GroupNormalization", [IMAGE], {"num_groups": 2}, {"s": normal(4), "b": normal(4)}),
]
RESIZE = [
    *(
        Case(
            "Resize", [(1, 2, 5, 6)],
            {"mode": mode, "coordinate_transformation_mode": coordinates},
            {"-": None, "--": None, "sizes": ints(1, 2, 8, 9)},
        )
        for mode in ("nearest", "linear", "cubic")
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    *(
        Case(
            "Resize", [(1, 2, 5, 6)],
            {"nearest_mode": mode, "coordinate_transformation_mode": "asymmetric"},
            {"-": None, "scales": np.array([1, 1, 2, 1.5], np.float32)},
        )
        for mode in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")
    ),
    Case("Resize", [(1, 2, 5, 6)], constants={"scales": floats(1, 1, 2, 2)}, opset=10),
    Case("Upsample", [(1, 2, 5, 6)], {"scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
    Case("Upsample", [(1, 2, 5, 6)], constants={"scales": floats(1, 1, 2, 2)}, opset=9),
    Case(
        "Resize", [(1, 2, 8, 8)], {"mode": "linear"},
        {"-": None, "scales": np.array([1, 1, 0.5, 0.75], np.float32)},
    ),
]  # fmt: skip
QUANTIZED = [
    Case("QuantizeLinear", [(3, 4)], constants={"s": np.float32(0.02), "z": np.uint8(100)}),
    Case("QuantizeLinear", [(3, 4)], constants={"s": np.float32(0.02)}),
    Case(
        "QuantizeLinear", [(3, 4)], {"axis": 0},
        {"s": np.array([0.1, 0.2, 0.01], np.float32), "z": np.array([0, 5, -7], np.int8)},
    ),
    Case(
        "DequantizeLinear", [(3, 4)], constants={"s": np.float32(0.02), "z": np.uint8(100)},
        dtype="uint8", low=0, high=255,
    ),
    Case(
        "DequantizeLinear", [(3, 4)], {"axis": -1}, {"s": np.array([0.1, 0.2, 3, 4], np.float32)},
        dtype="int8", low=-128, high=127,
    ),
    Case("DynamicQuantizeLinear", [(3, 4)], outputs="y s z"),
    Case("DynamicQuantizeLinear", [(3, 4)], outputs="y s z", low=1.0),
]  # fmt: skip
CASES = [*UNARY, *ATTRIBUTES, *BINARY, *REDUCTIONS, *MOVEMENT, *WINDOWS, *RESIZE, *QUANTIZED]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_import_run_and_export_equal_onnxruntime(case: Case):
    rng = np.random.default_rng(3)
    inputs = {
        name: rng.uniform(case.low, case.high, shape).astype(case.dtype)
        if case.dtype != "bool"
        else rng.random(shape) < 0.5
        for name, shape in zip("abc", case.shapes, strict=False)
    }
    names = " ".join(
        [*inputs, *("-" if value is None else key for key, value in case.constants.items())]
    )
    constants = {key: value for key, value in case.constants.items() if value is not None}
    proto = onnx_models.model(
        [onnx_models.node(case.op, names, case.outputs, **case.attrs)],
        inputs, case.outputs, constants, case.opset,
    )  # fmt: skip
    expected = onnx_models.run_ort(proto, inputs)

    graph = load_onnx(proto)
    computed = run_graph(graph, inputs)
    written = onnx_models.run_ort(to_onnx(graph), inputs)

    if case.becomes:
        assert case.becomes in {node.op for node in graph.nodes}
    for name, value in expected.items():
        assert graph.types[name].shape == value.shape
        assert graph.types[name].dtype == value.dtype.name
        _assert_close(computed[name], value)
        _assert_close(written[name], value)


def _assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE * 10)
    else:
        np.testing.assert_array_equal(found, expected)


def test_every_standard_operator_has_a_case():
    tested = {case.op for case in CASES}
    standard = {op for op in REWRITERS if "." not in op and not op.startswith("QLinear")}
    assert standard - tested - {"ConvInteger", "MatMulInteger"} == set()
