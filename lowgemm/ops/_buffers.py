"""Rewrites of a function's argument buffers, which tensor expressions cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import tvm


def strided_rows(func: tvm.tirx.PrimFunc, names: set[str]) -> tvm.tirx.PrimFunc:
    """`func` whose arguments `names`, `(tiles, rows, columns)`, have rows any distance apart; columns are adjacent."""
    return strided(func, {name: (f"{name}_tiles", f"{name}_rows", 1) for name in names})


def strided(
    func: tvm.tirx.PrimFunc, strides: Mapping[str, Sequence[int | str]]
) -> tvm.tirx.PrimFunc:
    """`func` whose arguments have the strides given by name, in elements; a string names one that is known at run time.

    Names that `func` does not have are passed over.
    """
    graph = json.loads(tvm.ir.save_json(func))
    nodes = graph["nodes"]
    root = nodes[graph["root_index"]]["data"]

    def add(kind: str, data) -> int:
        nodes.append({"type": kind, "data": data})
        return len(nodes) - 1

    for param in nodes[root["params"]]["data"]:
        name = nodes[nodes[param]["data"]["name"]]["data"]
        if name not in strides:
            continue
        buffer = nodes[nodes[param]["data"]["ty"]]["data"]
        like = nodes[nodes[buffer["shape"]]["data"][-1]]["data"]  # a size: an int32 constant
        kind = {"span": like["span"], "ty": like["ty"]}
        found = []
        for stride in strides[name]:
            if isinstance(stride, str):
                found.append(add("ir.Var", {**kind, "name": add("ffi.String", stride)}))
            else:
                found.append(add("ir.IntImm", {**kind, "value": add("int", stride)}))
        buffer["strides"] = add("ffi.Array", found)
    return tvm.ir.load_json(json.dumps(graph))
