"""Float regions: imported, legalized and fused by TVM's Relax, then scheduled here and emitted as kernel calls."""

from contextlib import redirect_stdout

import tvm
from tvm import relax
from tvm.ir.expr import GenericConst

from lowgemm.errors import UnsupportedOperatorError
from lowgemm.graph import Graph, Node
from lowgemm.lower._context import Context, model_order, storage_order
from lowgemm.lower._layout import in_model_order, reorder, same_bytes
from lowgemm.lower._program import Operand, Program
from lowgemm.schedules import schedule_float

_PIPELINE = tvm.transform.Sequential(
    [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.LegalizeOps(),
        relax.transform.FoldConstant(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
)


def lower_region(context: Context, nodes: list[Node]) -> None:
    """Emit the calls of the float operators `nodes`, a convex part of the graph.

    Raises:
        UnsupportedOperatorError: the importer knows no such operator, or not in this form.
    """
    from lowgemm.frontend import to_onnx

    program = context.program
    if all(_only_renames(context, node) for node in nodes):
        for node in nodes:
            context.declare(node.output)
            program.aliases[node.output] = program.resolve(node.inputs[0])
        return
    part = context.graph.subgraph(nodes)
    mod = _imported(to_onnx(_plainly_named(part)), nodes)
    for node in nodes:
        _refuse_what_is_misread(node)
    layer = "+".join(node.name for node in nodes[:3]) + ("+..." if len(nodes) > 3 else "")
    values: dict[relax.Var, list[Operand]] = {}
    main = mod["main"]
    for param, tensor in zip(main.params, part.inputs, strict=True):
        values[param] = [in_model_order(context, tensor, layer)]
    body = main.body
    returned = body.body
    wanted = _returned_vars(returned, body)
    prefix = part.outputs[0]
    counter = 0
    for block in body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Var):
                values[binding.var] = values[value]
                continue
            if isinstance(value, relax.TupleGetItem):
                values[binding.var] = [values[value.tuple_value][value.index]]
                continue
            if isinstance(value, relax.Tuple):
                values[binding.var] = [_one(program, values, field) for field in value.fields]
                continue
            if isinstance(value, GenericConst):
                values[binding.var] = [program.constant(value.value.numpy())]
                continue
            if not isinstance(value, relax.Call) or value.op.name != "relax.call_tir":
                raise UnsupportedOperatorError(
                    f"cannot compile the float operators of {layer}: {value}"
                )
            func = mod[value.args[0]]
            symbol = program.kernel("float", str(func), lambda func=func: schedule_float(func))
            outs = _outputs(value)
            operands = [_one(program, values, arg) for arg in value.args[1].fields]
            results = []
            for shape, dtype in outs:
                tensor = f"{prefix}/float{counter}"
                counter += 1
                program.declare(tensor, shape, dtype)
                results.append(program.operand(tensor))
            values[binding.var] = results
            name = value.args[0].name_hint
            program.call(
                symbol,
                [*operands, *results],
                layer,
                f"float_{name}_{context.target.level}",
                writes=len(results),
            )
    _bind_outputs(context, part, values, wanted, layer)


def _only_renames(context: Context, node: Node) -> bool:
    """Whether the node gives the same elements in the same order, of a tensor whose memory the result may share."""
    source, types = node.inputs[0], context.graph.types
    fixed = {*context.program.inputs, *context.graph.constants}
    return (
        node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
        and source not in fixed
        and context.program.resolve(source) not in fixed
        and all(storage_order(types[t]) == model_order(types[t]) for t in (source, node.output))
    )


def _refuse_what_is_misread(node: Node) -> None:
    """Refuse what the importer takes without a word and computes otherwise than ONNX."""
    if node.op == "Resize":
        what = "of integers, other than of the nearest 8-bit pixels,"
    elif node.op == "IsInf" and not (
        node.attrs.get("detect_negative", 1) and node.attrs.get("detect_positive", 1)
    ):
        what = "of one sign"
    else:
        return
    raise UnsupportedOperatorError(f"{node.op} {what} is not supported (node {node.name!r})")


def _plainly_named(part: Graph) -> Graph:
    """A copy whose tensors have names that are identifiers: TVM changes others, and warns of each."""
    plain = {"": ""} | {tensor: f"tensor{index}" for index, tensor in enumerate(part.types)}
    return Graph(
        name=part.name,
        inputs=[plain[t] for t in part.inputs],
        outputs=[plain[t] for t in part.outputs],
        nodes=[
            Node(n.op, [plain[t] for t in n.inputs], [plain[t] for t in n.outputs], n.attrs, n.name)
            for n in part.nodes
        ],
        types={plain[t]: type_ for t, type_ in part.types.items()},
        constants={plain[t]: value for t, value in part.constants.items()},
    )


def _imported(model, nodes: list[Node]) -> tvm.IRModule:
    from tvm.relax.frontend.onnx import from_onnx

    names = ", ".join(f"{node.op} ({node.name})" for node in nodes[:8])
    try:
        with redirect_stdout(None):  # where the importer writes beside what it raises
            mod = from_onnx(model, keep_params_in_input=False)
        mod = _PIPELINE(mod)
    except Exception as error:  # by which the importer tells what it does not take: any kind
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedOperatorError(
            f"cannot import the float operators {names}: {first}"
        ) from error
    return mod


def _returned_vars(returned, body) -> list:
    """The variables that the function returns, one per output."""
    definitions = {b.var: b.value for block in body.blocks for b in block.bindings}
    while returned in definitions and isinstance(definitions[returned], relax.Var):
        returned = definitions[returned]
    value = definitions.get(returned, returned)
    if isinstance(value, relax.Tuple):
        return list(value.fields)
    return [returned]


def _one(program: Program, values: dict, arg) -> Operand:
    if isinstance(arg, GenericConst):
        return program.constant(arg.value.numpy())
    return values[arg][0]


def _outputs(call: relax.Call) -> list[tuple[tuple[int, ...], str]]:
    result = call.ty_args[0]
    tensors = result.fields if isinstance(result, relax.TupleType) else [result]
    return [(tuple(int(d) for d in t.shape.values), str(t.dtype)) for t in tensors]


def _bind_outputs(context: Context, part: Graph, values: dict, wanted: list, layer: str) -> None:
    """Let the region's outputs be the tensors that its last calls wrote, or copies in the order of storage."""
    program = context.program
    for tensor, var in zip(part.outputs, wanted, strict=True):
        operand = _one(program, values, var)
        if operand.name in program.constants or operand.name in program.inputs:
            raise UnsupportedOperatorError(f"output {tensor!r} does not depend on a computation")
        type_ = part.types[tensor]
        if (operand.shape, operand.dtype) != (type_.shape, type_.dtype):
            raise UnsupportedOperatorError(
                f"the importer makes {operand.dtype}{list(operand.shape)} of {type_} in {layer}"
            )
        target, plain, stored = context.declare(tensor), model_order(type_), storage_order(type_)
        if same_bytes(type_.shape, plain, stored):
            program.aliases[tensor] = operand.name
        else:
            reorder(context, operand, plain, target, stored, type_.shape, layer)
