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
        "Tan",
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Acosh",
        "Atanh",
        "Sign",
    ]
)
_BINARY = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"))


def chain_operand(view: View, node: Node) -> str | None:
    """The input of an elementwise operator of one varying input."""
    if node.op in UNARY:
        return node.inputs[0]
    operands = varying_operands(view, node)
    if len(operands) != 1:
        return None
    # A constant of more axes than the operand gives them to the result.
    types = [view.graph.types[t] for t in (operands[0], node.output)]
    return operands[0] if types[0].rank == types[1].rank else None


def varying_operands(view: View, node: Node) -> list[str]:
    """The inputs of an elementwise operator that are not constants; none if it is something else.

    Something else is also an operator with a constant of more than one element.
    """
    if node.op not in UNARY and (node.op not in _BINARY or len(node.inputs) != 2):
        return []
    constants = [t for t in node.inputs if t in view.graph.constants]
    if any(view.graph.constants[t].size != 1 for t in constants):
        return []
    return [t for t in node.inputs if t not in constants]


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
