"""Recognise `DequantizeLinear -> operator -> QuantizeLinear` and make one integer operator of it.

The result is a graph in which quantized tensors flow between these operators (all parameters are attributes):

    QConv       convolution, or GEMM (attr gemm): weight int8, bias int32, scale float32 per output channel, then
                requantize; optionally a residual add; or float32 output
    QLut        any one-input elementwise chain, as a table of 256 entries
    QAdd, QMul  two quantized operands (QMul's second may be one value per channel)
    QAveragePool, QMaxPool, QConcat, QResize, QMove (reshape, transpose, ...)
    Quantize, Dequantize     at the borders to float operators

What does not match stays a float operator between Dequantize and Quantize: slower, never wrong.
"""

from dataclasses import dataclass

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.quant import dequantize_linear, quantize_linear

# Elementwise operators of one input: a chain of them between dequantize and quantize is a table.
UNARY = frozenset(
    [
        "Relu",
        "Clip",
        "HardSwish",
        "HardSigmoid",
        "Sigmoid",
        "Silu",
        "Tanh",
        "Gelu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Softplus",
        "Softsign",
        "Exp",
        "Log",
        "Sqrt",
        "Abs",
        "Neg",
        "Erf",
        "Floor",
        "Ceil",
        "Round",
        "Reciprocal",
        "Mish",
        "ThresholdedRelu",
        "Celu",
        "Sin",
        "Cos",
        "Sign",
    ]
)
_BINARY_WITH_CONSTANT = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"))
_MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Identity"))


@dataclass(frozen=True)
class Quantization:
    """real = scale * (q - zero_point), per tensor; `dtype` is "uint8" or "int8"."""

    scale: float
    zero_point: int
    dtype: str

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest q."""
        return (0, 255) if self.dtype == "uint8" else (-128, 127)

    def quantize(self, value: float) -> int:
        """The q of one real value."""
        low, high = self.range
        return int(
            np.clip(
                np.rint(np.float32(value) / np.float32(self.scale)) + self.zero_point, low, high
            )
        )


def fuse_quantized(graph: Graph) -> Graph:
    """`graph` (as the frontend made it; consumed) with its quantized islands as integer operators."""
    _fold_scalars(graph)
    _quantize_before_moving(graph)
    fuser = _Fuser(graph)
    fuser.run()
    return fuser.graph


def _fold_scalars(graph: Graph) -> None:
    """DequantizeLinear of a constant with one element becomes a float constant: an operand of elementwise operators."""
    for node in list(graph.nodes):
        if node.op != "DequantizeLinear" or any(
            t and t not in graph.constants for t in node.inputs
        ):
            continue
        value, scale, *point = (graph.constants[t] for t in node.inputs if t)
        if value.size == 1 and scale.size == 1 and node.output not in graph.outputs:
            real = dequantize_linear(value, scale.reshape(()), point[0].reshape(()) if point else 0)
            graph.constants[node.output] = real.astype(np.float32).reshape(value.shape)
            graph.nodes.remove(node)


def _quantize_before_moving(graph: Graph) -> None:
    """op -> Reshape -> QuantizeLinear becomes op -> QuantizeLinear -> QMove: then the operator can be an integer one.

    Data movement does not look at values, so quantizing commutes with it (if the parameters are per tensor).
    """
    changed = True
    while changed:
        changed = False
        producers, uses = graph.producers(), graph.uses()
        for index, node in enumerate(graph.nodes):
            if (
                node.op != "QuantizeLinear"
                or graph.constants.get(node.inputs[1], np.zeros(2)).size != 1
            ):
                continue
            move = producers.get(node.inputs[0])
            if (
                move is None
                or move.op not in _MOVES
                or len(uses[move.output]) > 1
                or move.output in graph.outputs
            ):
                continue
            source = producers.get(move.inputs[0])
            if source is None or source.op == "DequantizeLinear":
                continue
            out_type = graph.types[node.output]
            moved = graph.add_tensor(
                TensorType(graph.types[move.inputs[0]].shape, out_type.dtype),
                f"{node.output}/unmoved",
            )
            graph.nodes[index : index + 1] = [
                Node(
                    "QuantizeLinear",
                    [move.inputs[0], *node.inputs[1:]],
                    [moved],
                    dict(node.attrs),
                    node.name,
                ),
                Node("QMove", [moved], [node.output], {**move.attrs, "op": move.op}, move.name),
            ]
            graph.nodes.remove(move)
            changed = True
            break


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.uses = graph.uses()
        self.alias: dict[str, str] = {}

    def run(self) -> None:
        replaced: list[Node] = []
        for node in self.graph.nodes:
            if node.op == "QuantizeLinear":
                new = self._quantize(node)
            else:
                new = self._float_output(node) or self._on_codes(node)
            replaced.append(new or node)
        self.graph.nodes = replaced
        for node in self.graph.nodes:
            self._rename_border(node)
        for old, new in self.alias.items():
            self.graph.replace_uses(old, self._resolve(new))
        self.graph.prune()
        _merge_tables(self.graph)
        _fuse_residuals(self.graph)
        self.graph.prune()

    def _resolve(self, tensor: str) -> str:
        while tensor in self.alias:
            tensor = self.alias[tensor]
        return tensor

    # -- quantization parameters -------------------------------------------------------------------------------------

    def _params(self, node: Node) -> Quantization | None:
        """Per-tensor parameters of a QuantizeLinear or DequantizeLinear node; None if per channel or not constant."""
        scale = self.graph.constant(node.inputs[1])
        if scale is None or scale.size != 1:
            return None
        dtype = "uint8"
        point = 0
        if len(node.inputs) > 2 and node.inputs[2]:
            value = self.graph.constant(node.inputs[2])
            if value is None or value.size != 1:
                return None
            point, dtype = int(value.reshape(-1)[0]), value.dtype.name
        elif node.op == "DequantizeLinear":
            dtype = self.graph.types[node.inputs[0]].dtype
        if dtype not in ("uint8", "int8") or scale.dtype != np.float32:
            return None
        return Quantization(float(scale.reshape(-1)[0]), point, dtype)

    def _dequantized(self, tensor: str) -> tuple[str, Quantization] | None:
        """(quantized tensor, parameters) if `tensor` is a dequantized activation."""
        node = self.producers.get(tensor)
        if node is None or node.op != "DequantizeLinear" or node.inputs[0] in self.graph.constants:
            return None
        params = self._params(node)
        return (node.inputs[0], params) if params else None

    def _weight(self, tensor: str) -> tuple[np.ndarray, np.ndarray, int] | None:
        """(int8 values with zero point 0, scale per channel or of size 1, axis) of a constant quantized weight."""
        node = self.producers.get(tensor)
        if node is None or node.op != "DequantizeLinear" or node.attrs.get("block_size"):
            return None
        value, scale = self.graph.constant(node.inputs[0]), self.graph.constant(node.inputs[1])
        if value is None or scale is None or value.dtype not in (np.int8, np.uint8):
            return None
        axis = int(node.attrs.get("axis", 1)) % value.ndim
        shape = [1] * value.ndim
        if scale.size > 1:
            shape[axis] = -1
        centred = value.astype(np.int32)
        if len(node.inputs) > 2 and node.inputs[2]:
            point = self.graph.constant(node.inputs[2])
            if point is None:
                return None
            centred = centred - (
                point.astype(np.int32).reshape(shape if point.size > 1 else [1] * value.ndim)
            )
        if centred.min() < -128 or centred.max() > 127:
            return None
        return centred.astype(np.int8), scale.reshape(-1).astype(np.float32), axis

    def _real_constant(self, tensor: str) -> np.ndarray | None:
        """The float value of a constant, or of a dequantized constant."""
        if tensor in self.graph.constants:
            return self.graph.constants[tensor].astype(np.float64)
        node = self.producers.get(tensor)
        if node is None or node.op != "DequantizeLinear":
            return None
        value, scale = self.graph.constant(node.inputs[0]), self.graph.constant(node.inputs[1])
        if value is None or scale is None or node.attrs.get("block_size"):
            return None
        point = (
            self.graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        )
        shape = [1] * value.ndim
        if scale.size > 1:
            shape[int(node.attrs.get("axis", 1)) % value.ndim] = -1
        centred = value.astype(np.float64) - (
            0 if point is None else point.astype(np.float64).reshape(shape)
        )
        return centred * scale.astype(np.float64).reshape(shape)

    def _only_use(self, tensor: str) -> bool:
        return len(self.uses.get(tensor, ())) == 1 and tensor not in self.graph.outputs

    # -- matching ----------------------------------------------------------------------------------------------------

    def _quantize(self, node: Node) -> Node | None:
        """The integer operator that computes the output of the QuantizeLinear `node`."""
        out = self._params(node)
        if out is None or node.inputs[0] in self.graph.constants:
            return None
        chain: list[Node] = []
        tensor = node.inputs[0]
        while True:
            source = self._dequantized(tensor)
            if source:
                return self._table(node, source, chain[::-1], out)
            producer = self.producers.get(tensor)
            if producer is None or not self._only_use(tensor):
                return None
            operand = self._chain_operand(producer)
            if operand is None:
                break
            chain.append(producer)
            tensor = operand
        clamp = _clamp(chain[::-1], out)
        if clamp is None:
            return None
        return self._operator(producer, node.outputs[0], out, clamp)

    def _chain_operand(self, node: Node) -> str | None:
        """The input of an elementwise operator of one varying input."""
        if node.op in UNARY:
            return node.inputs[0]
        if node.op in _BINARY_WITH_CONSTANT and len(node.inputs) == 2:
            sizes = [
                self.graph.constants[t].size if t in self.graph.constants else None
                for t in node.inputs
            ]
            for operand, constant in ((0, 1), (1, 0)):
                if sizes[constant] == 1 and sizes[operand] is None:
                    # A constant of more axes than the operand gives them to the result.
                    types = [self.graph.types[t] for t in (node.inputs[operand], node.output)]
                    return node.inputs[operand] if types[0].rank == types[1].rank else None
        return None

    def _table(
        self, node: Node, source: tuple[str, Quantization], chain: list[Node], out: Quantization
    ) -> Node | None:
        tensor, params = source
        if not chain and params == out:
            self.alias[node.outputs[0]] = tensor
            return Node("Alias", [tensor], list(node.outputs), {}, node.name)
        low, high = params.range
        codes = np.arange(low, high + 1).astype(params.dtype)
        real = dequantize_linear(codes, np.float32(params.scale), params.zero_point)
        for step in chain:
            real = _evaluate(self.graph, step, real)
        table = quantize_linear(
            real.astype(np.float32), np.float32(out.scale), out.zero_point, np.dtype(out.dtype)
        )
        name = "+".join(step.name for step in chain) or node.name
        attrs = {"table": table, "in": params, "out": out, "ops": tuple(s.op for s in chain)}
        return Node("QLut", [tensor], list(node.outputs), attrs, name)

    def _float_output(self, node: Node) -> Node | None:
        """A convolution or GEMM on quantized operands whose result stays float."""
        if node.op not in ("Conv", "Gemm", "MatMul"):
            return None
        users = self.uses.get(node.outputs[0], [])
        quantized = all(u.op == "QuantizeLinear" or u.op in UNARY for u in users) and users
        if quantized and node.outputs[0] not in self.graph.outputs and self._ends_quantized(node):
            return None
        return self._operator(node, node.outputs[0], None, None)

    def _on_codes(self, node: Node) -> Node | None:
        """An operator of a QOperator model that works on 8-bit tensors directly."""
        if not node.inputs or self.graph.types[node.outputs[0]].dtype not in ("uint8", "int8"):
            return None
        if any(t in self.graph.constants for t in node.inputs[:1]):
            return None
        dtype = self.graph.types[node.outputs[0]].dtype
        # Where codes are only moved or compared, any parameters do, as long as they are the same on both sides.
        params = Quantization(1.0, 0, dtype)
        attrs = {**node.attrs, "in": (params,) * len(node.inputs), "out": params}
        rank = self.graph.types[node.inputs[0]].rank
        if node.op in _MOVES:
            return Node(
                "QMove", node.inputs[:1], list(node.outputs), {**attrs, "op": node.op}, node.name
            )
        if node.op == "MaxPool" and rank == 4 and len([o for o in node.outputs if o]) == 1:
            return Node("QMaxPool", node.inputs[:1], node.outputs[:1], attrs, node.name)
        if node.op == "Concat" and not any(t in self.graph.constants for t in node.inputs):
            return Node("QConcat", list(node.inputs), list(node.outputs), attrs, node.name)
        if node.op == "Resize" and self._resizes_pixels(node):
            return Node("QResize", node.inputs[:1], list(node.outputs), attrs, node.name)
        return None

    def _resizes_pixels(self, node: Node) -> bool:
        """Whether a Resize takes nearest elements along the rows and columns of a map, and of nothing else."""
        before, after = (self.graph.types[t].shape for t in (node.inputs[0], node.output))
        return len(before) == 4 and before[:2] == after[:2] and node.attrs["mode"] == "nearest"

    def _ends_quantized(self, node: Node) -> bool:
        """Whether `_quantize` will take the operator: a clamp chain of single uses that ends in QuantizeLinear."""
        tensor, chain = node.outputs[0], []
        while self._only_use(tensor):
            user = self.uses[tensor][0]
            if user.op == "QuantizeLinear":
                out = self._params(user)
                return out is not None and _clamp(chain, out) is not None
            if user.op not in UNARY:
                return False
            chain.append(user)
            tensor = user.outputs[0]
        return False

    def _operator(
        self, node: Node, output: str, out: Quantization | None, clamp: tuple[int, int] | None
    ) -> Node | None:
        if node.op in ("Conv", "Gemm", "MatMul"):
            return self._convolution(node, output, out, clamp)
        if out is None or clamp is None:
            return None
        # All inputs, since parameters are attributes: a constant among them is an operand that no integer operator has.
        sources = [self._dequantized(t) for t in node.inputs]
        if not sources or any(s is None for s in sources):
            return None
        tensors = [s[0] for s in sources if s]
        params = [s[1] for s in sources if s]
        attrs = {**node.attrs, "in": tuple(params), "out": out, "low": clamp[0], "high": clamp[1]}
        shapes = [self.graph.types[t].shape for t in tensors]
        op = None
        if node.op in ("Add", "Mul") and len(tensors) == 2:
            if shapes[0] == shapes[1]:
                op = f"Q{node.op}"
            elif node.op == "Mul" and _per_channel(shapes[0], shapes[1]):
                op = "QMul"
            elif node.op == "Mul" and _per_channel(shapes[1], shapes[0]):
                op, tensors = "QMul", tensors[::-1]
                attrs["in"] = tuple(params[::-1])
        elif node.op in ("GlobalAveragePool", "AveragePool", "ReduceMean"):
            op = self._average(node, attrs)
        elif node.op in ("GlobalMaxPool", "MaxPool") and len(shapes[0]) == 4:
            if params[0] == out and len([o for o in node.outputs if o]) == 1:
                op = "QMaxPool"
                if node.op == "GlobalMaxPool":
                    attrs.update(
                        kernel_shape=shapes[0][2:],
                        strides=(1, 1),
                        pads=(0, 0, 0, 0),
                        dilations=(1, 1),
                    )
        elif node.op == "Concat":
            op = "QConcat"
        elif node.op == "Resize" and params[0] == out and self._resizes_pixels(node):
            op = "QResize"
        elif node.op in _MOVES and params[0] == out:
            op = "QMove"
            attrs["op"] = node.op
        if op is None:
            return None
        if op in ("QMaxPool", "QResize", "QMove", "QConcat") and clamp != out.range:
            return None
        return Node(op, tensors, [output], attrs, node.name)

    def _average(self, node: Node, attrs: dict) -> str | None:
        shape = self.graph.types[node.inputs[0]].shape
        if len(shape) != 4:
            return None
        whole = {"kernel_shape": shape[2:], "strides": (1, 1), "pads": (0, 0, 0, 0)}
        if node.op == "GlobalAveragePool":
            attrs.update(whole)
        elif node.op == "ReduceMean":
            axes = sorted(int(a) % 4 for a in node.attrs.get("axes", ()))
            if axes != [2, 3]:
                return None
            attrs.update(whole)
        elif node.attrs.get("ceil_mode") or any(
            d != 1 for d in node.attrs.get("dilations", (1, 1))
        ):
            return None
        return "QAveragePool"

    def _convolution(
        self, node: Node, output: str, out: Quantization | None, clamp: tuple[int, int] | None
    ) -> Node | None:
        source = self._dequantized(node.inputs[0])
        weight = self._weight(node.inputs[1])
        if source is None or weight is None:
            return None
        tensor, params = source
        values, scales, axis = weight
        gemm = node.op != "Conv"
        if gemm:
            if values.ndim != 2 or (scales.size > 1 and axis != 1):
                return None
            values = values.T[:, :, None, None]
        elif values.ndim != 4 or (scales.size > 1 and axis != 0):
            return None
        channels = values.shape[0]
        scales = np.broadcast_to(scales, (channels,)).astype(np.float64)
        product = np.float64(np.float32(params.scale)) * scales
        bias = np.zeros(channels, np.float64)
        if len(node.inputs) > 2 and node.inputs[2]:
            real = self._real_constant(node.inputs[2])
            if real is None:
                return None
            bias = np.broadcast_to(real.reshape(-1), (channels,))
        fitted = _fit_accumulator(values, bias, product, out)
        if fitted is None:
            return None
        values, rounded, product = fitted
        scale = product if out is None else product / np.float64(np.float32(out.scale))
        attrs = {
            "gemm": gemm,
            "weight": np.ascontiguousarray(values),
            "bias": rounded.astype(np.int32),
            "scale": scale.astype(np.float32),
            "in": params,
            "out": out,
        }
        if clamp:
            attrs.update(low=clamp[0], high=clamp[1])
        for key in ("strides", "pads", "dilations", "group"):
            if key in node.attrs:
                attrs[key] = node.attrs[key]
        if not gemm and self.graph.types[tensor].rank != 4:
            return None
        return Node("QConv", [tensor], [output], attrs, node.name)

    def _rename_border(self, node: Node) -> None:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            params = self._params(node)
            if params and node.inputs[0] not in self.graph.constants:
                node.op = node.op.removesuffix("Linear")
                node.attrs = {"params": params}
                node.inputs = node.inputs[:1]


def _fit_accumulator(
    values: np.ndarray, bias: np.ndarray, product: np.ndarray, out: Quantization | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(weights, integer bias, scales) with which no sum can leave 32 bits; None if that would cost precision.

    A channel that training switched off has tiny weights and so a tiny scale, in which its bias is a huge integer. Such
    a channel is brought to a coarser scale: its weights are rounded again, which moves the sum by less than 1/256 of an
    output step, or it is refused.
    """
    channels = values.shape[0]
    flat = values.reshape(channels, -1).astype(np.int64)
    reach = np.abs(flat).sum(1) * 255 + np.abs(np.rint(bias / product))
    coarser = np.ceil(reach / (2**31 - 2**24))
    coarser[reach < 2**31] = 1.0
    if np.all(coarser == 1.0):
        return values, np.rint(bias / product), product
    step = out.scale if out else np.abs(bias).max() / 256
    moved = (0.5 * 255 * flat.shape[1] + 1.0) * product * coarser
    if np.any((coarser > 1.0) & (moved > step / 256)):
        return None
    scales = product * coarser
    coarse = np.rint(flat / coarser[:, None]).astype(np.int8).reshape(values.shape)
    return coarse, np.rint(bias / scales), scales


def _per_channel(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether `other` has one value per channel of `shape` `(n, c, h, w)`."""
    return (
        len(shape) == 4
        and other in ((shape[0], shape[1], 1, 1), (1, shape[1], 1, 1))
        and shape[0] == 1
    )


def _clamp(chain: list[Node], out: Quantization) -> tuple[int, int] | None:
    """The range of q after a chain of ReLU and Clip, None if the chain holds anything else.

    Quantizing is monotone, so clipping before it equals clamping q to the quantized limits after it.
    """
    low, high = out.range
    for node in chain:
        if node.op == "Relu":
            low, high = max(low, out.quantize(0.0)), max(high, out.quantize(0.0))
        elif node.op == "Clip":
            lower, upper = node.attrs.get("min"), node.attrs.get("max")
            if lower is not None:
                q = out.quantize(float(lower))
                low, high = max(low, q), max(high, q)
            if upper is not None:
                q = out.quantize(float(upper))
                low, high = min(low, q), min(high, q)
        else:
            return None
    return low, high


def _evaluate(graph: Graph, node: Node, values: np.ndarray) -> np.ndarray:
    """One elementwise operator applied to a vector, by the reference definition."""
    from lowgemm import reference

    single = Graph(name=node.name)
    constants = [t for t in node.inputs if t and t in graph.constants]
    inputs = []
    for tensor in node.inputs:
        if tensor and tensor not in constants:
            single.inputs, inputs = ["x"], [*inputs, "x"]
        elif tensor:
            single.constants[tensor] = graph.constants[tensor].reshape(-1)
            single.types[tensor] = TensorType((1,), graph.types[tensor].dtype)
            inputs.append(tensor)
        else:
            inputs.append("")
    single.types.update(x=TensorType.of(values), y=TensorType.of(values))
    single.outputs = ["y"]
    single.nodes = [Node(node.op, inputs, ["y"], dict(node.attrs), node.name)]
    return reference.run_graph(single, {"x": values})["y"]


def add_ratios(
    first: Quantization, second: Quantization, out: Quantization
) -> tuple[np.float32, np.float32]:
    """What QAdd multiplies its operands with: each scale over the output's, rounded to float32 once."""
    ratios = [np.float32(np.float64(q.scale) / np.float64(out.scale)) for q in (first, second)]
    return ratios[0], ratios[1]


def mul_ratio(first: Quantization, second: Quantization, out: Quantization) -> np.float32:
    """What QMul multiplies the product of codes with."""
    return np.float32(np.float64(first.scale) * np.float64(second.scale) / np.float64(out.scale))


def _merge_tables(graph: Graph) -> None:
    """Everything that is a function of one tensor's codes becomes one table.

    Tables in a row, and also sums and products of two tables of the same tensor: a hard-swish that a model spells as
    x * hard_sigmoid(x), each step quantized, is still 256 values.
    """
    functions: dict[str, tuple[str, np.ndarray, Quantization]] = {}
    for node in graph.nodes:
        sources = node.attrs.get("in", ())
        sources = sources if isinstance(sources, tuple) else (sources,)
        if node.op == "QLut":
            known = [_as_function(functions, node.inputs[0], sources[0])]
        elif node.op in ("QAdd", "QMul") and len({graph.types[t].shape for t in node.inputs}) == 1:
            known = [
                _as_function(functions, *pair) for pair in zip(node.inputs, sources, strict=True)
            ]
        else:
            continue
        root, _, params = known[0]
        if any(other[0] != root for other in known):
            continue
        codes = [table.astype(np.int64) for _, table, _ in known]
        if node.op == "QLut":
            table = node.attrs["table"][codes[0] - sources[0].range[0]]
        else:
            table = _arithmetic(node, codes, sources)
        functions[node.output] = (root, table, params)
        ops = node.attrs.get("ops", (node.op[1:],))
        node.op, node.inputs = "QLut", [root]
        node.attrs = {"table": table, "in": params, "out": node.attrs["out"], "ops": ops}
    graph.prune()


def _as_function(
    functions, tensor: str, params: Quantization
) -> tuple[str, np.ndarray, Quantization]:
    low, high = params.range
    return functions.get(tensor, (tensor, np.arange(low, high + 1), params))


def _arithmetic(
    node: Node, codes: list[np.ndarray], sources: tuple[Quantization, ...]
) -> np.ndarray:
    """QAdd or QMul on vectors of codes, in the kernels' float32 arithmetic."""
    out: Quantization = node.attrs["out"]
    real = [(c - q.zero_point).astype(np.float32) for c, q in zip(codes, sources, strict=True)]
    if node.op == "QAdd":
        first, second = add_ratios(*sources, out=out)
        value = real[0] * first + real[1] * second
    else:
        value = real[0] * real[1] * mul_ratio(*sources, out=out)
    return np.clip(np.rint(value) + out.zero_point, node.attrs["low"], node.attrs["high"]).astype(
        out.dtype
    )


def _is_depthwise(conv: Node) -> bool:
    return conv.attrs.get("group", 1) > 1 and conv.attrs["weight"].shape[1] == 1


def _fuse_residuals(graph: Graph) -> None:
    """QConv -> QAdd with one use between them becomes a QConv with a second operand.

    The convolution's own rounding to 8 bits stays where the model put it, so the result does not change.
    """
    order = {id(node): i for i, node in enumerate(graph.nodes)}
    producers = graph.producers()
    uses = graph.uses()
    for add in [n for n in graph.nodes if n.op == "QAdd"]:
        # The operand computed last can take the other one along.
        candidates = []
        for side in (0, 1):
            conv = producers.get(add.inputs[side])
            other = producers.get(add.inputs[1 - side])
            if (
                conv is not None
                and conv.op == "QConv"
                and not _is_depthwise(conv)  # whose kernel has no second operand
                and "add" not in conv.attrs
                and conv.attrs["out"] is not None
                and len(uses[conv.output]) == 1
                and conv.output not in graph.outputs
                # The fused sum takes the codes as the convolution made them: with its zero point.
                and conv.attrs["out"].zero_point == add.attrs["in"][side].zero_point
                and add.inputs[0] != add.inputs[1]
                and graph.types[add.inputs[1 - side]].rank == 4
                and (other is None or order[id(other)] < order[id(conv)])
            ):
                candidates.append((order[id(conv)], side, conv))
        if not candidates:
            continue
        _, side, conv = max(candidates, key=lambda c: c[0])
        mine, theirs = add.attrs["in"][side], add.attrs["in"][1 - side]
        conv.attrs["add"] = {
            "in": (mine, theirs),
            "out": add.attrs["out"],
            "low": add.attrs["low"],
            "high": add.attrs["high"],
        }
        conv.inputs.append(add.inputs[1 - side])
        conv.outputs = [add.output]
        conv.name = f"{conv.name}+{add.name}"
        graph.nodes.remove(add)
        producers[add.output] = conv
