"""Statements of TVM's functions, rebuilt around others: what neither a tensor expression nor a schedule can say."""

from collections.abc import Callable

import tvm
from tvm import s_tir, tirx


def argument(func: tvm.tirx.PrimFunc, name: str) -> tirx.Buffer:
    """The argument `name`."""
    (found,) = (param for param in func.params if param.name == name)
    return found


def with_body(block: s_tir.SBlock, body: tirx.Stmt, init: tirx.Stmt | None = None) -> s_tir.SBlock:
    """The block `block` around `body`, with another `init` if it is given."""
    head = (block.iter_vars, block.reads, block.writes, block.name_hint, body, init or block.init)
    return s_tir.SBlock(*head, block.alloc_buffers, block.match_buffers, block.annotations)


def with_loop_body(loop: tirx.For, body: tirx.Stmt, annotations: dict | None = None) -> tirx.For:
    """The loop `loop` around `body`, with other `annotations` if they are given."""
    head = (loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding)
    return tirx.For(*head, loop.annotations if annotations is None else annotations)


def rewritten(stmt: tirx.Stmt, rewrite: Callable[[tirx.Stmt], tirx.Stmt]) -> tirx.Stmt:
    """`stmt` with what `rewrite` makes of each statement, innermost first."""
    if isinstance(stmt, tirx.SeqStmt):
        stmt = tirx.SeqStmt([rewritten(each, rewrite) for each in stmt.seq])
    elif isinstance(stmt, tirx.AttrStmt):
        stmt = tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, rewritten(stmt.body, rewrite))
    elif isinstance(stmt, tirx.IfThenElse):
        other = stmt.else_case and rewritten(stmt.else_case, rewrite)
        stmt = tirx.IfThenElse(stmt.condition, rewritten(stmt.then_case, rewrite), other)
    elif isinstance(stmt, tirx.For):
        stmt = with_loop_body(stmt, rewritten(stmt.body, rewrite))
    elif isinstance(stmt, s_tir.SBlockRealize):
        block = with_body(stmt.block, rewritten(stmt.block.body, rewrite))
        stmt = s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, block)
    return rewrite(stmt)
