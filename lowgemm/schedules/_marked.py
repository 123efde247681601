"""Rewriting what a schedule cannot say: loops are marked in the schedule, and replaced in the function it makes."""

from collections.abc import Callable
from typing import Any

import tvm
from tvm import s_tir, tirx

from lowgemm.statements import with_body, with_loop_body

_MARK = "lowgemm_role"


def mark_loops(sch: s_tir.Schedule, loops: dict[str, Any]) -> None:
    """Give loops their roles, by name."""
    for role, loop in loops.items():
        sch.annotate(loop, _MARK, role)


def replace_steps(func: tvm.tirx.PrimFunc, replace: Callable) -> tvm.tirx.PrimFunc:
    """`func` with what `replace` makes of the loop in the role "step": of the marked loops around it and of itself, by
    their roles."""
    return func.with_body(_rewrite(func.body, {}, replace))


def _rewrite(stmt, loops: dict, replace: Callable):
    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([_rewrite(each, loops, replace) for each in stmt.seq])
    if isinstance(stmt, s_tir.SBlockRealize) and isinstance(
        stmt.block.body, tirx.For | tirx.SeqStmt
    ):
        block = with_body(stmt.block, _rewrite(stmt.block.body, loops, replace))
        return s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, block)
    if not isinstance(stmt, tirx.For):
        return stmt
    annotations = dict(stmt.annotations)
    role = annotations.pop(_MARK, None)
    inside = {**loops, str(role): stmt} if role else loops
    body = _rewrite(stmt.body, inside, replace)
    loop = with_loop_body(stmt, body, annotations)
    return replace({**inside, "step": loop}) if role == "step" else loop
