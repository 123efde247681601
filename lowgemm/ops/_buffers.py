"""Rewrites of a function's argument buffers, which tensor expressions cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import tvm
from tvm_ffi.serialization import from_json_graph_str

_ALIGNMENT = re.compile(r'"data_alignment": *\d+')


def unaligned(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`func` with buffers that may begin at any element, as a user's array does; TVM expects 64 bytes.

    Vectors are then loaded and stored by instructions that take any address, which cost nothing where it happens to be
    a multiple of the vector. All buffers, because the operands of intrinsics are parts of others, with their alignment.
    """
    # As text, and without tvm.ir.load_json, which first looks for nodes of older versions: three times as fast.
    text = _ALIGNMENT.sub('"data_alignment":1', tvm.ir.save_json(func))
    return from_json_graph_str(text)


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
