"""Rewriters of arithmetic: elementwise operators, reductions, softmax, products of matrices."""

from functools import reduce

import numpy as np

from lowgemm.frontend._registry import (
    CANONICAL_OPSET,
    Call,
    UnsupportedForm,
    canonical_attrs,
    normal_axis,
    rewrites,
)
from lowgemm.graph import TensorType

_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos"),
    *("Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf"),
    *("IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round"),
    *("Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan"),
    *("Tanh", "ThresholdedRelu"),
)
_BINARY = (
    *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Mod", "Mul", "Or", "PRelu", "Sub", "Xor"),
)


@rewrites(*_UNARY, *_BINARY, "Where", "MatMul")
def keep(call: Call) -> None:
    """Operators whose newest form is their only one, up to attributes with defaults."""
    if call.op in ("Add", "Sub", "Mul", "Div") and call.attrs.get("broadcast"):
        raise UnsupportedForm("broadcasting by attribute")
    call.emit(call.op, call.inputs, canonical_attrs(call.op, call.attrs))


@rewrites("Pow")
def power(call: Call) -> None:
    """Pow of two operands of one type, where the exponent is a constant."""
    base, exponent = call.inputs
    value, dtype = call.value(1), call.type(0).dtype
    if call.attrs.get("broadcast"):
        raise UnsupportedForm("broadcasting by attribute")
    if value is not None and value.dtype != dtype and np.array_equal(value.astype(dtype), value):
        exponent = call.constant(value.astype(dtype), "exponent")
    call.emit("Pow", [base, exponent])


@rewrites("Swish")
def swish(call: Call) -> None:
    """x * sigmoid(alpha * x)."""
    (x,), type_ = call.inputs, call.out_type
    alpha = float(call.attrs.get("alpha", 1.0))
    if alpha == 1.0:
        return call.emit("Silu", [x])
    factor = call.constant(np.array(alpha, type_.dtype), "alpha")
    scaled = call.temp("Mul", [x, factor], {}, type_, "scaled")
    gate = call.temp("Sigmoid", [scaled], {}, type_, "gate")
    call.emit("Mul", [x, gate])


@rewrites("com.microsoft.Gelu", "com.microsoft.QuickGelu", "com.microsoft.FastGelu")
def contrib_gelu(call: Call) -> None:
    """ONNX Runtime's names for the three kinds of GELU; FastGelu may add a bias first."""
    x, type_ = call.inputs[0], call.type(0)
    if call.has(1):
        x = call.temp("Add", [x, call.inputs[1]], {}, type_, "biased")
    if call.op.endswith("QuickGelu"):
        factor = call.constant(np.array(call.attrs.get("alpha", 1.702), type_.dtype), "alpha")
        scaled = call.temp("Mul", [x, factor], {}, type_, "scaled")
        gate = call.temp("Sigmoid", [scaled], {}, type_, "gate")
        return call.emit("Mul", [x, gate], type_=type_)
    approximate = "tanh" if call.op.endswith("FastGelu") else "none"
    call.emit("Gelu", [x], {"approximate": approximate}, type_)


@rewrites("Min", "Max", "Sum", "Mean")
def variadic(call: Call) -> None:
    """Any number of inputs become a chain of operators with two."""
    op = {"Sum": "Add", "Mean": "Add"}.get(call.op, call.op)
    count, dtype = len(call.inputs), call.out_type.dtype

    def join(left: str, right: str) -> str:
        shapes = (call.graph.types[left].shape, call.graph.types[right].shape)
        type_ = TensorType(np.broadcast_shapes(*shapes), dtype)
        return call.temp(op, [left, right], {}, type_, op.lower())

    if call.op == "Mean" and count > 1:
        total = reduce(join, call.inputs)
        share = call.constant(np.array(1 / count, dtype), "share")
        return call.emit("Mul", [total, share])
    if count == 1:
        return call.forward(call.inputs[0])
    call.emit(op, [reduce(join, call.inputs[:-1]), call.inputs[-1]])


@rewrites("Clip")
def clip(call: Call) -> None:
    """Clip {min, max}: floats, infinite where there is no bound. Bounds known late: Max and Min."""
    type_ = call.out_type
    late = [i for i in (1, 2) if call.has(i) and call.value(i) is None]
    if late:
        x = call.inputs[0]
        if call.has(1):
            x = call.temp("Max", [x, call.inputs[1]], {}, type_, "max")
        if call.has(2):
            return call.emit("Min", [x, call.inputs[2]])
        return call.forward(x)
    low = call.scalar(1, "min", "the lower bound", -np.inf)
    high = call.scalar(2, "max", "the upper bound", np.inf)
    # Opset 6 wrote "no bound" as the largest float.
    largest = float(np.finfo(np.float32).max)
    low, high = (-np.inf if low <= -largest else low), (np.inf if high >= largest else high)
    if low == -np.inf and high == np.inf:
        return call.forward(call.inputs[0])
    if low == 0 and high == np.inf:
        return call.emit("Relu", call.inputs[:1])
    call.emit("Clip", call.inputs[:1], {"min": low, "max": high})


@rewrites("Cast", "CastLike")
def cast(call: Call) -> None:
    """Cast {to}: numpy's name of the type. A cast to the same type goes away."""
    wanted = call.out_type.dtype
    if wanted == call.type(0).dtype:
        return call.forward(call.inputs[0])
    if wanted in ("object", "str_"):
        raise UnsupportedForm("text")
    call.emit("Cast", call.inputs[:1], {"to": wanted})


@rewrites("Identity", "Dropout")
def forward(call: Call) -> None:
    """Nothing happens in inference."""
    if call.op == "Dropout" and call.has(2):
        training = call.value(2)
        if training is None or training.reshape(()):
            raise UnsupportedForm("training mode")
    if any(call.outputs[1:]):
        ones = np.ones(call.type(0).shape, np.bool_)
        call.aliases[call.outputs[1]] = call.constant(ones, "mask")
    call.forward(call.inputs[0])


@rewrites("Softmax", "LogSoftmax")
def softmax(call: Call) -> None:
    """Softmax {axis}. Before opset 13 all axes from `axis` on were one: reshaped to that."""
    rank, shape = call.type(0).rank, call.type(0).shape
    legacy = call.opset < 13
    axis = call.axis(1 if legacy else -1)
    if not legacy or all(extent == 1 for extent in shape[axis + 1 :]):
        return call.emit(call.op, call.inputs, {"axis": axis})
    if axis == rank - 1:
        return call.emit(call.op, call.inputs, {"axis": axis})
    dtype = call.type(0).dtype
    flat = [int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))]
    flat_type = TensorType(tuple(flat), dtype)
    x = call.temp("Reshape", call.inputs, {"shape": flat}, flat_type, "flat")
    y = call.temp(call.op, [x], {"axis": 1}, flat_type, "softmax")
    call.emit("Reshape", [y], {"shape": list(shape)})


@rewrites(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def reduction(call: Call) -> None:
    """Reduce* {axes, keepdims}: the axes counted from the front, in order."""
    rank = call.type(0).rank
    axes = call.ints(1, "axes", "the axes")
    if not axes:
        if call.attrs.get("noop_with_empty_axes", 0):
            return call.forward(call.inputs[0])
        axes = list(range(rank))
    axes = sorted({normal_axis(axis, rank) for axis in axes})
    keepdims = int(call.attrs.get("keepdims", 1))
    pool = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}.get(call.op)
    # Rank 3 is rather a sequence than an image: there it belongs to a normalization.
    if pool and keepdims and rank > 3 and axes == list(range(2, rank)):
        return call.emit(pool, call.inputs[:1])
    call.emit(call.op, call.inputs[:1], {"axes": axes, "keepdims": keepdims})


@rewrites("ArgMax", "ArgMin")
def arg_extreme(call: Call) -> None:
    """ArgMax {axis, keepdims, select_last_index}."""
    attrs = {"axis": call.axis(0), "keepdims": int(call.attrs.get("keepdims", 1))}
    attrs["select_last_index"] = int(call.attrs.get("select_last_index", 0))
    call.emit(call.op, call.inputs, attrs)


@rewrites("Gemm")
def gemm(call: Call) -> None:
    """Gemm {}: a @ b + c. Factors and transpositions become nodes; `_simplify` folds them."""
    attrs = canonical_attrs("Gemm", call.attrs)
    a, b = call.inputs[:2]
    type_ = call.out_type

    def transposed(tensor: str, hint: str) -> str:
        found = call.graph.types[tensor]
        flipped = TensorType(found.shape[::-1], found.dtype)
        return call.temp("Transpose", [tensor], {"perm": [1, 0]}, flipped, hint)

    def scaled(tensor: str, factor: float, hint: str) -> str:
        found = call.graph.types[tensor]
        by = call.constant(np.array(factor, found.dtype), f"{hint}:factor")
        return call.temp("Mul", [tensor, by], {}, found, hint)

    if attrs["transA"]:
        a = transposed(a, "lhs")
    if attrs["transB"]:
        b = transposed(b, "rhs")
    if attrs["alpha"] != 1:
        b = scaled(b, attrs["alpha"], "alpha")
    if not call.has(2) or attrs["beta"] == 0:
        return call.emit("Gemm", [a, b])
    c = call.inputs[2]
    if attrs["beta"] != 1:
        c = scaled(c, attrs["beta"], "beta")
    columns = type_.shape[1]
    if call.graph.types[c].shape in ((columns,), (1, columns)) and c in call.graph.constants:
        return call.emit("Gemm", [a, b, call.reshaped(c, (columns,), "bias")])
    if call.graph.types[c].shape == (columns,):
        return call.emit("Gemm", [a, b, c])
    product = call.temp("Gemm", [a, b], {}, type_, "product")
    call.emit("Add", [product, c])


@rewrites("LayerNormalization", "LpNormalization", "InstanceNormalization")
@rewrites("GroupNormalization", "LRN", "MeanVarianceNormalization")
def normalization(call: Call) -> None:
    """Kept, with the axis counted from the front."""
    if call.op == "GroupNormalization" and call.opset < CANONICAL_OPSET:
        raise UnsupportedForm(f"the form of opset {call.opset}; convert the model to opset 21")
    if any(call.outputs[1:]):
        raise UnsupportedForm("the statistics as outputs")
    call.outputs, call.types = call.outputs[:1], call.types[:1]
    attrs = canonical_attrs(call.op, call.attrs)
    if "axis" in attrs:
        attrs["axis"] = normal_axis(attrs["axis"], call.type(0).rank)
    call.emit(call.op, call.inputs, attrs, call.type(0))
