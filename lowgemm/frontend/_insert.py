"""Putting QuantizeLinear and DequantizeLinear around what can be computed in integers."""

from dataclasses import dataclass

import numpy as np

from lowgemm.frontend._calibrate import Range
from lowgemm.frontend._match import Matcher
from lowgemm.graph import Graph, Node, TensorType
from lowgemm.quant import (
    LARGEST_SUM,
    QParams,
    choose_qparams,
    choose_symmetric_scales,
    extreme_sums,
    quantize_linear,
)

# A channel's scale is widened by so much where rounding leaves its sums a little too large.
_WIDER = np.float32(1.004)

# What begins an integer region.
_PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# What copies elements: the result has the parameters of what went in.
_COPIES = frozenset(
    (
        *("MaxPool", "GlobalMaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
        *("Split", "Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile"),
    )
)
_ACTIVATIONS = frozenset(
    (
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid"),
        *("HardSwish", "Silu", "Tanh", "Gelu", "Mish", "Softplus", "Softsign"),
    )
)
# What goes on with a region that it reads from, and does not begin one.
_FOLLOWERS = frozenset(
    (
        *("Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "ReduceMean", "Resize"),
        *("Pad", *_COPIES, *_ACTIVATIONS),
    )
)


@dataclass(frozen=True)
class Plan:
    """Which nodes become integer operators, and which tensors are quantized for that."""

    nodes: list[Node]
    tensors: list[str]


def plan_regions(graph: Graph) -> Plan:
    """Choose the nodes to quantize: products, and what follows them through cheap operators.

    A follower joins where all that it reads (constants aside) comes out of the region, so that no
    float-only part of a model, such as a normalization, is torn up.
    """
    match = Matcher(graph)
    chosen: set[int] = set()
    inside: set[str] = set()
    for node in graph.nodes:
        if _is_float(graph, node) and (_is_product(graph, node) or _follows(graph, node, inside)):
            chosen.add(id(node))
            inside.update(node.outputs)
    # What only rearranges elements on their way into a region (an input in another layout, say) can
    # as well do it with the integers.
    for node in reversed(graph.nodes):
        users = [user for tensor in node.outputs for user in match.uses.get(tensor, [])]
        if node.op in (*_COPIES, "Concat") and _is_float(graph, node) and users:
            is_output = any(tensor in graph.outputs for tensor in node.outputs)
            if not is_output and all(id(user) in chosen for user in users):
                chosen.add(id(node))
    nodes = [node for node in graph.nodes if id(node) in chosen]
    tensors: dict[str, None] = {}
    for node in nodes:
        for tensor in _data_inputs(graph, node):
            tensors.setdefault(tensor)
        for tensor in node.outputs:
            if tensor and not _is_absorbed(match, node, chosen):
                tensors.setdefault(tensor)
    # The input of an activation that its producer absorbs is no tensor of its own.
    for node in nodes:
        if _is_absorbed(match, node, chosen):
            tensors.pop(node.output, None)
    return Plan(nodes, list(tensors))


def _is_float(graph: Graph, node: Node) -> bool:
    return all(graph.types[t].dtype == "float32" for t in node.outputs if t)


def _is_product(graph: Graph, node: Node) -> bool:
    if node.op == "MatMul":
        return True
    return node.op in _PRODUCTS and node.inputs[1] in graph.constants


def _follows(graph: Graph, node: Node, inside: set[str]) -> bool:
    if node.op not in _FOLLOWERS:
        return False
    if node.op == "Pad" and (node.attrs["mode"] != "constant" or node.attrs["value"] != 0):
        return False
    if node.op == "Resize" and node.attrs["mode"] == "cubic":
        return False
    if node.op == "ReduceMean" and (graph.types[node.inputs[0]].rank, len(node.attrs["axes"])) != (
        4,
        2,
    ):
        return False  # not over the pixels of an image: likely a normalization's
    data = _data_inputs(graph, node)
    return bool(data) and all(tensor in inside for tensor in data)


def _data_inputs(graph: Graph, node: Node) -> list[str]:
    """What a node reads besides constants and indices."""
    return [
        tensor
        for tensor in node.inputs
        if tensor and tensor not in graph.constants and graph.types[tensor].dtype == "float32"
    ]


def _is_absorbed(match: Matcher, node: Node, chosen: set[int]) -> bool:
    """Whether the next operator takes the node's result as it is, with no rounding in between.

    That is so for a Relu or Clip, whose work the clamp of the quantization behind does; and from
    one function of single elements to the next, which are one table together.
    """
    user = match.only_use(node.output) if len(node.outputs) == 1 else None
    if user is None or id(user) not in chosen:
        return False
    if is_table(match.graph, node) and is_table(match.graph, user):
        return True
    if node.op not in (*_PRODUCTS, "Add", "Mul") or user.op not in ("Relu", "Clip"):
        return False
    return user.op == "Relu" or user.attrs["min"] <= 0 <= user.attrs["max"]


def is_table(graph: Graph, node: Node) -> bool:
    """Whether every element of the result depends on one element, in the same way everywhere."""
    others = [graph.constants.get(tensor) for tensor in node.inputs[1:]]
    if node.op in ("Add", "Mul"):
        scalars = [t for t in node.inputs if t in graph.constants and graph.constants[t].size == 1]
        return len(scalars) == 1
    return node.op in _ACTIVATIONS and all(c is not None and c.size == 1 for c in others)


class Inserter:
    """Builds the quantized graph from the float graph, the plan and the measured ranges."""

    def __init__(
        self, graph: Graph, plan: Plan, ranges: dict[str, Range], reduce_range: bool
    ) -> None:
        self.source, self.plan, self.ranges = graph, plan, ranges
        self.reduce_range = reduce_range
        self.graph = graph.copy()
        self.graph.nodes = []
        self.params = _choose_params(plan, ranges)
        self.dequantized: dict[str, str] = {}  # quantized tensor -> its name behind the pair
        self.scalars: dict[QParams, tuple[str, str]] = {}

    def build(self) -> Graph:
        """The same graph with its nodes between DequantizeLinear and QuantizeLinear."""
        chosen = {id(node) for node in self.plan.nodes}
        for tensor in self.graph.inputs:
            self.pair(tensor)
        for original in self.source.nodes:
            node = Node(
                original.op, list(original.inputs), list(original.outputs),
                dict(original.attrs), original.name,
            )  # fmt: skip
            if id(original) in chosen:
                self.quantize_node(node)
            node.inputs = [self.dequantized.get(tensor, tensor) for tensor in node.inputs]
            self.graph.nodes.append(node)
            for tensor in node.outputs:
                self.pair(tensor)
        self.restore_output_names()
        self.drop_clamps()
        self.graph.prune()
        self.graph.sort()
        return self.graph

    # -- activations -------------------------------------------------------------------------------

    def pair(self, tensor: str) -> None:
        """Quantize and dequantize `tensor` if it is to be."""
        params = self.params.get(tensor)
        if params is None or tensor in self.dequantized:
            return
        graph, shape = self.graph, self.graph.types[tensor].shape
        scale, zero = self.scalar(params)
        q = graph.add_tensor(TensorType(shape, "uint8"), f"{tensor}:quantized")
        real = graph.add_tensor(TensorType(shape, "float32"), f"{tensor}:dequantized")
        graph.nodes.append(
            Node("QuantizeLinear", [tensor, scale, zero], [q], {}, f"{tensor}/quantize")
        )
        graph.nodes.append(
            Node("DequantizeLinear", [q, scale, zero], [real], {}, f"{tensor}/dequantize")
        )
        self.dequantized[tensor] = real

    def scalar(self, params: QParams) -> tuple[str, str]:
        """Constants for scale and zero point, shared by all tensors that have the same."""
        if params not in self.scalars:
            number = len(self.scalars)
            self.scalars[params] = (
                self.graph.add_constant(np.array(params.scale, np.float32), f"scale:{number}"),
                self.graph.add_constant(
                    np.array(params.zero_point, np.uint8), f"zero_point:{number}"
                ),
            )
        return self.scalars[params]

    def restore_output_names(self) -> None:
        """Outputs are what comes behind the pair, and keep their names."""
        graph = self.graph
        for output in graph.outputs:
            if output in self.dequantized:
                inner = graph.fresh_name(f"{output}:real")
                behind = self.dequantized[output]
                outputs = graph.outputs
                graph.rename(output, inner)
                graph.rename(behind, output)
                graph.outputs = [output if tensor == inner else tensor for tensor in outputs]

    def drop_clamps(self) -> None:
        """Remove every Relu and Clip whose work the quantization behind it does.

        With zero point 0 nothing below 0 can be represented, and a range that ends at the bound
        cannot go over it.
        """
        graph = self.graph
        match = Matcher(graph)
        for node in [node for node in graph.nodes if node.op in ("Relu", "Clip")]:
            quantize = match.only_use(node.output)
            if quantize is None or quantize.op != "QuantizeLinear":
                continue
            scale, zero = (graph.constants[tensor] for tensor in quantize.inputs[1:])
            # Half a step beyond a bound still rounds to it.
            low = float(scale) * (0 - int(zero) - 0.5)
            high = float(scale) * (255 - int(zero) - 0.5)
            bounds = (0.0, np.inf) if node.op == "Relu" else (node.attrs["min"], node.attrs["max"])
            if low + float(scale) * 0.5 >= bounds[0] and high <= bounds[1]:
                quantize.inputs[0] = node.inputs[0]
        graph.prune()

    # -- weights -----------------------------------------------------------------------------------

    def quantize_node(self, node: Node) -> None:
        """Quantize the constants that a node reads."""
        constants = self.source.constants
        if node.op in _PRODUCTS:
            if len(node.inputs) > 1 and node.inputs[1] in constants:
                self.quantize_weight(node)
            return
        if node.op in ("Add", "Mul", "Concat"):
            for index, tensor in enumerate(node.inputs):
                # A single number belongs to the elementwise operator, and stays exact.
                if tensor in constants and constants[tensor].size > 1:
                    node.inputs[index] = self.quantize_operand(tensor)

    def quantize_operand(self, tensor: str) -> str:
        """A constant operand as uint8, dequantized."""
        if tensor in self.dequantized:
            return self.dequantized[tensor]
        value = self.source.constants[tensor]
        params = choose_qparams(float(value.min()), float(value.max()))
        scale, zero = self.scalar(params)
        integers = quantize_linear(value, params.scale, params.zero_point)
        q = self.graph.add_constant(integers, f"{tensor}:quantized")
        real = self.graph.add_tensor(TensorType.of(value), f"{tensor}:dequantized")
        self.graph.nodes.append(
            Node("DequantizeLinear", [q, scale, zero], [real], {}, f"{tensor}/dequantize")
        )
        self.dequantized[tensor] = real
        return real

    def quantize_weight(self, node: Node) -> None:
        """The weight as symmetric int8 for every output channel, the bias as int32."""
        weight = self.source.constants[node.inputs[1]]
        axis = _channel_axis(node, weight)
        scales = choose_symmetric_scales(weight, axis)
        params = self.params.get(node.inputs[0])
        bias = self.source.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None and params is not None and axis is not None:
            scales = _fit_bias(scales, bias, params.scale)
        if self.reduce_range and axis is not None:
            scales = _fit_sums(node, weight, scales, axis)
        integers = np.maximum(quantize_linear(weight, scales, 0, "int8", axis), np.int8(-127))
        node.inputs[1] = self.dequantize(node.inputs[1], integers, scales, axis)
        if bias is not None and params is not None and bias.size == bias.shape[-1]:
            product = np.float32(params.scale) * scales
            product = np.broadcast_to(product, bias.reshape(-1).shape).astype(np.float32)
            integers = quantize_linear(bias.reshape(-1), product, 0, "int32", 0)
            node.inputs[2] = self.dequantize(node.inputs[2], integers, product, 0)

    def dequantize(
        self, tensor: str, integers: np.ndarray, scales: np.ndarray, axis: int | None
    ) -> str:
        """Add integers and the DequantizeLinear behind them, and return its output."""
        graph = self.graph
        q = graph.add_constant(integers, f"{tensor}:quantized")
        scale = graph.add_constant(scales, f"{tensor}:scale")
        zero = graph.add_constant(np.zeros(scales.shape, integers.dtype), f"{tensor}:zero_point")
        type_ = TensorType(integers.shape, "float32")
        real = graph.add_tensor(type_, f"{tensor}:dequantized")
        attrs = {} if axis is None else {"axis": axis}
        graph.nodes.append(
            Node("DequantizeLinear", [q, scale, zero], [real], attrs, f"{real}/node")
        )
        return real


def _choose_params(plan: Plan, ranges: dict[str, Range]) -> dict[str, QParams]:
    """Parameters of every tensor in the plan; a copy has those of its source."""
    wanted, copied = set(plan.tensors), {}
    for node in plan.nodes:
        if node.op in _COPIES or (node.op == "Resize" and node.attrs["mode"] == "nearest"):
            for tensor in node.outputs:
                copied[tensor] = node.inputs[0]
        elif node.op == "Pad":
            copied[node.output] = node.inputs[0]
    params = {}
    for tensor in plan.tensors:
        source = tensor
        while source in copied and copied[source] in wanted:
            source = copied[source]
        found = ranges[source]
        params[tensor] = choose_qparams(found.low, found.high)
    return params


def _channel_axis(node: Node, weight: np.ndarray) -> int | None:
    """The axis of a weight that counts output channels; None if there is none of its own."""
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if node.attrs["group"] == 1 else None
    return weight.ndim - 1 if weight.ndim == 2 else None


def _fit_bias(scales: np.ndarray, bias: np.ndarray, x_scale: float) -> np.ndarray:
    """Widen the scale of a channel whose bias would leave int32.

    That is a channel with next to no weight, which loses nothing by it.
    """
    least = np.abs(bias.reshape(-1).astype(np.float64)) / (x_scale * 2.0**30)
    return np.maximum(scales, least.astype(np.float32))


def _fit_sums(node: Node, weight: np.ndarray, scales: np.ndarray, axis: int) -> np.ndarray:
    """Widen the scale of each channel in which the sum of two products could exceed 16 bits."""
    real = extreme_sums(_runs(node, weight), 1) / np.float32(LARGEST_SUM)
    scales = np.maximum(scales, real.astype(np.float32))
    while True:
        integers = quantize_linear(weight, scales, 0, "int8", axis)
        over = extreme_sums(_runs(node, integers), 1) > LARGEST_SUM
        if not over.any():
            return scales
        scales = np.where(over, scales * _WIDER, scales)


def _runs(node: Node, weight: np.ndarray) -> np.ndarray:
    """The weights of each output channel in the order in which kernels sum products: `(channels, rows, run)`.

    A row of the filter window is one run, input channels innermost; with groups or dilation each of its points is.
    """
    if node.op != "Conv":
        last = np.moveaxis(weight, _channel_axis(node, weight) or 0, 0)
        return np.moveaxis(last, 1, -1).reshape(len(last), -1, last.shape[1])
    whole = node.attrs["group"] == 1 and node.attrs["dilations"][-1] == 1
    taps_first = np.moveaxis(weight, 1, -1)
    run = taps_first.shape[-1] * (taps_first.shape[-2] if whole else 1)
    return taps_first.reshape(len(weight), -1, run)
