"""Between the order in which tensors are stored and the model's own, at every border where they differ."""

import numpy as np

from lowgemm import schedules, topi
from lowgemm.lower._context import Context, arranged, model_order, storage_order
from lowgemm.lower._program import Operand


def same_bytes(shape: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether both orders put every element in the same place: axes of extent 1 may stand anywhere."""
    orders = [[axis for axis in order if shape[axis] != 1] for order in (first, second)]
    return orders[0] == orders[1]


def reorder(
    context: Context,
    source: Operand,
    source_order: tuple[int, ...],
    target: Operand,
    target_order: tuple[int, ...],
    shape: tuple[int, ...],
    layer: str,
) -> None:
    """Emit a copy from `source` to `target`, which hold a tensor of the model's `shape` in two orders."""
    index = stored_index(shape, source_order).transpose(target_order)
    emit_copy(context, source, target, index, layer)


def stored_index(shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """For each element of a tensor of the model's `shape`, its position where it is stored in `order`."""
    flat = np.arange(int(np.prod(shape)), dtype=np.int64)
    return flat.reshape(arranged(shape, order)).transpose(np.argsort(order))


def emit_copy(
    context: Context, source: Operand, target: Operand, index: np.ndarray, layer: str
) -> None:
    """Emit the copy of the elements at `index` of `source`, in this order, to `target`.

    `loops` knows a nest for `index`.
    """
    nest = loops(index)
    assert nest is not None, f"a copy in {layer} is no nest of loops"
    size = int(np.prod(source.shape))
    key = (*nest, int(index.flat[0]), size, source.dtype)
    symbol = context.program.kernel(
        "move", key, lambda: schedules.schedule_move(topi.move(*key), nest[1][-1] == 1)
    )
    args = [
        Operand(source.name, (size,), source.dtype),
        Operand(target.name, nest[0], target.dtype),
    ]
    context.program.call(symbol, args, layer, f"move_{context.target.level}")


def loops(index: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The nest of loops, as few as there can be, that counts through `index`: (extents, strides), or None."""
    rest = index.reshape(-1) - index.flat[0]
    extents: list[int] = []
    strides: list[int] = []
    while rest.size > 1:
        steps = np.arange(rest.size) * rest[1]
        jumps = np.flatnonzero(rest != steps)
        extent = int(jumps[0]) if jumps.size else rest.size
        if rest.size % extent:
            return None
        runs = rest.reshape(-1, extent)
        if np.any(runs - runs[:, :1] != steps[:extent]):
            return None
        extents.insert(0, extent)
        strides.insert(0, int(rest[1]))
        rest = runs[:, 0]
    return (tuple(extents), tuple(strides)) if extents else ((1,), (1,))


def in_model_order(context: Context, tensor: str, layer: str) -> Operand:
    """`tensor` as an operand in the model's order: itself, or a copy that is made once."""
    program, type_ = context.program, context.graph.types[tensor]
    stored, plain = storage_order(type_), model_order(type_)
    if tensor in program.inputs or same_bytes(type_.shape, stored, plain):
        return program.operand(tensor, type_.shape)
    copy = f"{tensor}/plain"
    if copy not in program.tensors:
        program.declare(copy, type_.shape, type_.dtype)
        source, target = program.operand(tensor), program.operand(copy)
        reorder(context, source, stored, target, plain, type_.shape, layer)
    return program.operand(copy)


def declare_written(context: Context, tensor: str, order: tuple[int, ...]) -> str:
    """Declare the graph's `tensor`, and return the program's tensor that a kernel is to write in the order `order`.

    `store_written` comes behind the kernel's call.
    """
    program, type_ = context.program, context.graph.types[tensor]
    context.declare(tensor)
    if same_bytes(type_.shape, order, storage_order(type_)):
        return tensor
    written = f"{tensor}/written"
    program.declare(written, arranged(type_.shape, order), type_.dtype)
    return written


def store_written(context: Context, tensor: str, written: str, order, layer: str) -> None:
    """Bring what a kernel wrote in the order `order` into the order in which `tensor` is stored."""
    if written != tensor:
        program, type_ = context.program, context.graph.types[tensor]
        source, target = program.operand(written), program.operand(tensor)
        reorder(context, source, order, target, storage_order(type_), type_.shape, layer)


def declare_inputs(context: Context, integer_ops: frozenset[str]) -> None:
    """Declare the model's inputs, which come in the model's order; integer operators read them as they are stored."""
    program, graph = context.program, context.graph
    for name in graph.inputs:
        type_ = graph.types[name]
        program.declare(name, type_.shape, type_.dtype)
        readers = [n for n in graph.nodes if n.op in integer_ops and name in n.inputs]
        stored, plain = storage_order(type_), model_order(type_)
        if stored == plain or not readers:
            continue
        moved = f"{name}/stored"
        graph.types[moved] = type_
        for node in readers:
            node.inputs = [moved if tensor == name else tensor for tensor in node.inputs]
        source, target = program.operand(name), context.declare(moved)
        reorder(context, source, plain, target, stored, type_.shape, name)


def finish_outputs(context: Context) -> None:
    """Bring model outputs into the model's order and out of memory shared with other tensors."""
    program, graph = context.program, context.graph
    for index, name in enumerate(program.outputs):
        type_ = graph.types[name]
        plain = order = model_order(type_)
        if name in graph.constants:
            source = program.constant(graph.constants[name])
        else:
            source = program.operand(name)
            order = plain if name in program.inputs else storage_order(type_)
        taken = [program.resolve(tensor) for tensor in (*program.inputs, *program.outputs[:index])]
        own = source.name not in (*program.constants, *taken)
        if own and same_bytes(type_.shape, order, plain):
            program.outputs[index] = source.name
            program.declare(source.name, type_.shape, type_.dtype)
            continue
        fresh = f"{name}/output{index}"
        program.declare(fresh, type_.shape, type_.dtype)
        program.outputs[index] = fresh
        reorder(context, source, order, program.operand(fresh), plain, type_.shape, "output")
