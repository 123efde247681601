"""Recognise `DequantizeLinear -> operator -> QuantizeLinear` and make one integer operator of it.

The result is a graph in which quantized tensors flow between these operators (all parameters are attributes):

    QConv       convolution, or GEMM (attr gemm): weight int8, bias int32, scale float32 per output channel, then
                requantize; optionally a residual add or a hard-swish; or float32 output
    QLut        any elementwise function of one tensor, as a table of 256 entries
    QAdd, QMul  two quantized operands (QMul's second may be one value per channel, and it may have a residual add; a
                difference is the QAdd of a negative scale)
    QAveragePool, QMaxPool, QConcat, QResize, QMove (reshape, transpose, ...)
    Quantize, Dequantize     at the borders to float operators
    Resample                 resize of one axis of a float tensor
    RowSoftmax               softmax along the last axis of a float tensor, or of codes with attr params

What does not match stays a float operator between Dequantize and Quantize: slower, never wrong.
"""

from lowgemm.graph import Graph, Node
from lowgemm.passes._chains import UNARY, chain_operand, clamp
from lowgemm.passes._convolutions import convolution
from lowgemm.passes._hard_swishes import fuse_hard_swishes
from lowgemm.passes._operators import on_codes, operator
from lowgemm.passes._prepare import fold_scalars, quantize_before_moving, requantize_choices
from lowgemm.passes._quantization import Quantization
from lowgemm.passes._rescales import tabulate_before_resizing
from lowgemm.passes._reshapes import absorb_reshapes
from lowgemm.passes._residuals import fuse_residuals
from lowgemm.passes._resizes import spell_out_resizes
from lowgemm.passes._softmaxes import fuse_softmaxes
from lowgemm.passes._spelled_out import spell_out_operators
from lowgemm.passes._tables import Function, function_of_codes, merge_tables, tabulate
from lowgemm.passes._transposed import spell_out_transposed
from lowgemm.passes._view import View


def fuse_quantized(graph: Graph) -> Graph:
    """`graph` (as the frontend made it; consumed) with its quantized islands as integer operators."""
    fold_scalars(graph)
    spell_out_transposed(graph)
    requantize_choices(graph)
    quantize_before_moving(graph)
    fuser = _Fuser(graph)
    fuser.run()
    spell_out_resizes(fuser.graph)
    spell_out_operators(fuser.graph)
    fuse_softmaxes(fuser.graph)
    return fuser.graph


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.view = View(graph)
        self.alias: dict[str, str] = {}

    def run(self) -> None:
        replaced: list[Node] = []
        for node in self.graph.nodes:
            if node.op == "QuantizeLinear":
                new = self._quantize(node)
            else:
                new = self._float_output(node) or on_codes(self.view, node)
            replaced.append(new or node)
        self.graph.nodes = replaced
        for node in self.graph.nodes:
            self._rename_border(node)
        for old, new in self.alias.items():
            self.graph.replace_uses(old, self._resolve(new))
        self.graph.prune()
        tabulate_before_resizing(self.graph)
        merge_tables(self.graph)
        absorb_reshapes(self.graph)
        fuse_residuals(self.graph)
        fuse_hard_swishes(self.graph)
        self.graph.prune()

    def _resolve(self, tensor: str) -> str:
        while tensor in self.alias:
            tensor = self.alias[tensor]
        return tensor

    def _quantize(self, node: Node) -> Node | None:
        """The integer operator that computes the output of the QuantizeLinear `node`."""
        out = self.view.params(node)
        if out is None or node.inputs[0] in self.graph.constants:
            return None
        function = function_of_codes(self.view, node.inputs[0])
        if function:
            return self._table(node, function, out)
        chain: list[Node] = []
        tensor = node.inputs[0]
        while True:
            producer = self.view.producers.get(tensor)
            if producer is None or not self.view.only_use(tensor):
                return None
            operand = chain_operand(self.view, producer)
            if operand is None:
                break
            chain.append(producer)
            tensor = operand
        limits = clamp(chain[::-1], out)
        if limits is None:
            return None
        return self._operator(producer, node.outputs[0], out, limits)

    def _table(self, node: Node, function: Function, out: Quantization) -> Node:
        """The function between two quantizations as a table; nothing at all where it is the identity."""
        if not function.nodes and function.params == out:
            self.alias[node.outputs[0]] = function.codes
            return Node("Alias", [function.codes], list(node.outputs), {}, node.name)
        return tabulate(self.graph, function, node, out)

    def _operator(
        self, node: Node, output: str, out: Quantization | None, limits: tuple[int, int] | None
    ) -> Node | None:
        if node.op in ("Conv", "Gemm", "MatMul"):
            return convolution(self.view, node, output, out, limits)
        if out is None or limits is None:
            return None
        return operator(self.view, node, output, out, limits)

    def _float_output(self, node: Node) -> Node | None:
        """A convolution or GEMM on quantized operands whose result stays float."""
        if node.op not in ("Conv", "Gemm", "MatMul"):
            return None
        users = self.view.uses.get(node.outputs[0], [])
        quantized = all(u.op == "QuantizeLinear" or u.op in UNARY for u in users) and users
        if quantized and node.outputs[0] not in self.graph.outputs and self._ends_quantized(node):
            return None
        return self._operator(node, node.outputs[0], None, None)

    def _ends_quantized(self, node: Node) -> bool:
        """Whether `_quantize` will take the operator: a clamp chain of single uses that ends in QuantizeLinear."""
        tensor, chain = node.outputs[0], []
        while self.view.only_use(tensor):
            user = self.view.uses[tensor][0]
            if user.op == "QuantizeLinear":
                out = self.view.params(user)
                return out is not None and clamp(chain, out) is not None
            if user.op not in UNARY:
                return False
            chain.append(user)
            tensor = user.outputs[0]
        return False

    def _rename_border(self, node: Node) -> None:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            params = self.view.params(node)
            if params and node.inputs[0] not in self.graph.constants:
                node.op = node.op.removesuffix("Linear")
                node.attrs = {"params": params}
                node.inputs = node.inputs[:1]
