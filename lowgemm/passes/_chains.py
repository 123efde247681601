"""Chains of elementwise operators of one varying input."""

from lowgemm.graph import Node
from lowgemm.passes._quantization import Quantization
from lowgemm.passes._view import View

# A chain of them between dequantize and quantize is a table.
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


def chain_operand(view: View, node: Node) -> str | None:
    """The input of an elementwise operator of one varying input."""
    if node.op in UNARY:
        return node.inputs[0]
    if node.op in _BINARY_WITH_CONSTANT and len(node.inputs) == 2:
        sizes = [
            view.graph.constants[t].size if t in view.graph.constants else None for t in node.inputs
        ]
        for operand, constant in ((0, 1), (1, 0)):
            if sizes[constant] == 1 and sizes[operand] is None:
                # A constant of more axes than the operand gives them to the result.
                types = [view.graph.types[t] for t in (node.inputs[operand], node.output)]
                return node.inputs[operand] if types[0].rank == types[1].rank else None
    return None


def clamp(chain: list[Node], out: Quantization) -> tuple[int, int] | None:
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
