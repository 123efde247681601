"""Float Resize as one weighted sum along each axis that it changes."""

import numpy as np

from lowgemm import reference
from lowgemm.graph import Graph, Node, TensorType


def spell_out_resizes(graph: Graph) -> None:
    """Resize of float32 becomes a chain of Resample {axis, index, weight}, both arrays `(taps, size)`.

    TVM's importer reads other coordinates out of several of ONNX's modes, and only changes rows and columns.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "Resize" and graph.types[node.output].dtype == "float32":
            nodes += _resamples(graph, node)
        else:
            nodes.append(node)
    graph.nodes = nodes


def _resamples(graph: Graph, node: Node) -> list[Node]:
    tensor, shape = node.inputs[0], list(graph.types[node.inputs[0]].shape)
    sizes, scales = node.attrs["sizes"], node.attrs["scales"]
    axes = [a for a, size in enumerate(sizes) if size != shape[a] or scales[a] != 1]
    nodes = []
    # Axes that shrink come first: the others then have less to do.
    for axis in sorted(axes, key=lambda a: sizes[a] / shape[a]):
        index, weight = _taps(node.attrs, shape[axis], sizes[axis], scales[axis])
        shape[axis] = sizes[axis]
        last = len(nodes) == len(axes) - 1
        type_ = TensorType(tuple(shape), "float32")
        out = node.output if last else graph.add_tensor(type_, f"{node.output}/axis{axis}")
        attrs = {"axis": axis, "index": index, "weight": weight}
        nodes.append(Node("Resample", [tensor], [out], attrs, f"{node.name}/axis{axis}"))
        tensor = out
    return nodes


def _taps(attrs: dict, size: int, out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """int32 and float32 `(taps, out)`: which elements go into each element of the result, and how much of them."""
    if attrs["mode"] == "nearest":
        index = reference.nearest_index(attrs, size, out, scale)[None]
        return index.astype(np.int32), np.ones(index.shape, np.float32)
    shares = reference.axis_weights(attrs, size, out, scale)
    taps = max(1, int((shares != 0).sum(1).max()))
    index = np.argsort(shares == 0, axis=1, kind="stable")[:, :taps]
    weight = np.take_along_axis(shares, index, axis=1)
    return index.T.astype(np.int32), weight.T.astype(np.float32)
