"""Transposed convolutions of codes, as convolutions."""

import numpy as np

from lowgemm.graph import Graph, Node, TensorType
from lowgemm.passes._view import View


def spell_out_transposed(graph: Graph) -> None:
    """A quantized ConvTranspose becomes Conv -> DepthToSpace -> Slice.

    Outputs at positions of the same remainder divided by the stride s are an ordinary convolution over the input, with
    every s-th tap of the filter. One convolution computes those of all remainders, as so many more channels, which
    DepthToSpace puts side by side and Slice cuts to size. Where the filter is no larger than the stride, as it mostly
    is, none of its weights is a zero.
    """
    view = View(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _spelled(view, node) or [node]
    graph.nodes = nodes


def _spelled(view: View, node: Node) -> list[Node] | None:
    graph, attrs = view.graph, node.attrs
    if node.op != "ConvTranspose" or view.dequantized(node.inputs[0]) is None:
        return None
    weight = view.weight(node.inputs[1])
    strides = tuple(attrs["strides"])
    square = len(strides) == 2 and strides[0] == strides[1]
    if weight is None or not square or attrs["group"] != 1 or set(attrs["dilations"]) != {1}:
        return None
    values, scales, axis = weight
    if scales.size > 1 and axis != 1:
        return None
    stride, (_, channels, *out) = strides[0], graph.types[node.output].shape
    taps = [-(-extent // stride) for extent in values.shape[2:]]
    inner, pads = _phases(values, stride, taps), [taps[0] - 1, taps[1] - 1] * 2
    sizes = graph.types[node.inputs[0]].shape[2:]
    # One more row or column of whole strides, where the result goes on behind the last input.
    for side, extent in enumerate(out):
        reach = (sizes[side] + taps[side] - 1) * stride - attrs["pads"][side]
        pads[2 + side] += max(0, -(-(extent - reach) // stride))
    maps = [size + before + after - tap + 1 for size, before, after, tap in
            zip(sizes, pads[:2], pads[2:], taps, strict=True)]  # fmt: skip
    batch = graph.types[node.output].shape[0]

    def tensor(shape: tuple[int, ...], hint: str) -> str:
        return graph.add_tensor(TensorType(shape, "float32"), f"{node.output}/{hint}")

    copies = stride * stride
    each = np.broadcast_to(scales, (channels,))
    nodes = [_dequantized(graph, node, inner, np.tile(each, copies))]
    inputs = [node.inputs[0], nodes[0].output]
    if len(node.inputs) > 2:
        bias = view.real_constant(node.inputs[2])
        if bias is None:
            return None
        repeated = np.tile(bias.reshape(-1), copies).astype(np.float32)
        inputs.append(graph.add_constant(repeated, f"{node.output}/bias"))
    spread = tensor((batch, copies * channels, *maps), "phases")
    window = {"kernel_shape": taps, "strides": [1, 1], "pads": pads, "dilations": [1, 1]}
    nodes.append(Node("Conv", inputs, [spread], {**window, "group": 1}, node.name))
    whole = (batch, channels, *(extent * stride for extent in maps))
    cut = whole[2:] != tuple(out)
    joined = tensor(whole, "whole") if cut else node.output
    nodes.append(
        Node(
            "DepthToSpace",
            [spread],
            [joined],
            {"blocksize": stride, "mode": "DCR"},
            f"{node.name}/join",
        )
    )
    if cut:
        starts = list(attrs["pads"][:2])
        ends = [start + extent for start, extent in zip(starts, out, strict=True)]
        bounds = {"starts": starts, "ends": ends, "axes": [2, 3], "steps": [1, 1]}
        nodes.append(Node("Slice", [joined], [node.output], bounds, f"{node.name}/cut"))
    return nodes


def _phases(values: np.ndarray, stride: int, taps: list[int]) -> np.ndarray:
    """The weights `(inputs, outputs, height, width)` as `(stride * stride * outputs, inputs, *taps)`, turned round."""
    rest = [count * stride - extent for count, extent in zip(taps, values.shape[2:], strict=True)]
    padded = np.pad(values, ((0, 0), (0, 0), (0, rest[0]), (0, rest[1])))
    inputs, outputs = values.shape[:2]
    split = padded.reshape(inputs, outputs, taps[0], stride, taps[1], stride)
    turned = split[:, :, ::-1, :, ::-1, :].transpose(3, 5, 1, 0, 2, 4)
    return np.ascontiguousarray(turned).reshape(stride * stride * outputs, inputs, *taps)


def _dequantized(graph: Graph, node: Node, values: np.ndarray, scales: np.ndarray) -> Node:
    """A weight with a scale for each of its output channels, behind a DequantizeLinear."""
    inputs = [
        graph.add_constant(values, f"{node.output}/weight"),
        graph.add_constant(scales, f"{node.output}/scale"),
        graph.add_constant(np.zeros(scales.shape, np.int8), f"{node.output}/zero"),
    ]
    real = graph.add_tensor(TensorType(values.shape, "float32"), f"{node.output}/real")
    return Node("DequantizeLinear", inputs, [real], {"axis": 0}, f"{node.name}/weight")
