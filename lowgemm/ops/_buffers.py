"""Rewrites of a function's argument buffers, which tensor expressions cannot say."""

from __future__ import annotations

import json

import tvm


def unaligned(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`func` with arguments that may begin at any element, as a user's array does; TVM expects 64 bytes.

    Whole vectors are then loaded and stored by instructions that take any address, which cost nothing where the address
    happens to be a multiple.
    """
    graph = json.loads(tvm.ir.save_json(func))
    nodes = graph["nodes"]
    root = nodes[graph["root_index"]]["data"]
    for param in nodes[root["params"]]["data"]:
        kind = nodes[nodes[param]["data"]["ty"]]
        if kind["type"] == "tirx.BufferType":
            kind["data"]["data_alignment"] = 1
    return tvm.ir.load_json(json.dumps(graph))


def strided_rows(func: tvm.tirx.PrimFunc, names: set[str]) -> tvm.tirx.PrimFunc:
    """`func` whose arguments `names`, `(tiles, rows, columns)`, have any distance between rows; columns are adjacent."""
    graph = json.loads(tvm.ir.save_json(func))
    nodes = graph["nodes"]
    root = nodes[graph["root_index"]]["data"]

    def add(kind: str, data) -> int:
        nodes.append({"type": kind, "data": data})
        return len(nodes) - 1

    for param in nodes[root["params"]]["data"]:
        name = nodes[nodes[param]["data"]["name"]]["data"]
        if name not in names:
            continue
        buffer = nodes[nodes[param]["data"]["ty"]]["data"]
        like = nodes[nodes[buffer["shape"]]["data"][-1]]["data"]  # a size: an int32 constant
        strides = []
        for axis in ("tiles", "rows"):
            label = add("ffi.String", f"{name}_{axis}")
            strides.append(add("ir.Var", {"span": like["span"], "ty": like["ty"], "name": label}))
        one = add("ir.IntImm", {"span": like["span"], "ty": like["ty"], "value": 1})
        buffer["strides"] = add("ffi.Array", [*strides, one])
    return tvm.ir.load_json(json.dumps(graph))
