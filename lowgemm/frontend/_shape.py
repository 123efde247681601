"""Rewriters of operators that move or choose elements: what they need becomes attributes."""

import numpy as np

from lowgemm.frontend._registry import Call, UnsupportedForm, normal_axis, rewrites
from lowgemm.graph import TensorType


@rewrites("Reshape", "Flatten")
def reshape(call: Call) -> None:
    """Reshape {shape}: all sizes given, nothing to work out."""
    if call.types[0] is None:
        raise UnsupportedForm("the new shape must be known at compile time")
    if call.out_type.shape == call.type(0).shape:
        return call.forward(call.inputs[0])
    call.emit("Reshape", call.inputs[:1], {"shape": list(call.out_type.shape)})


@rewrites("Squeeze")
def squeeze(call: Call) -> None:
    """Squeeze {axes}."""
    shape = call.type(0).shape
    axes = call.ints(1, "axes", "the axes")
    if axes is None:
        axes = [axis for axis, extent in enumerate(shape) if extent == 1]
    axes = sorted(normal_axis(axis, len(shape)) for axis in axes)
    if not axes:
        return call.forward(call.inputs[0])
    left = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    call.emit("Squeeze", call.inputs[:1], {"axes": axes}, TensorType(left, call.type(0).dtype))


@rewrites("Unsqueeze")
def unsqueeze(call: Call) -> None:
    """Unsqueeze {axes}: positions in the result."""
    axes = call.ints(1, "axes", "the axes") or []
    rank = call.type(0).rank + len(axes)
    axes = sorted(normal_axis(axis, rank) for axis in axes)
    if not axes:
        return call.forward(call.inputs[0])
    call.emit("Unsqueeze", call.inputs[:1], {"axes": axes})


@rewrites("Transpose")
def transpose(call: Call) -> None:
    """Transpose {perm}."""
    rank = call.type(0).rank
    perm = [int(axis) for axis in call.attrs.get("perm", range(rank - 1, -1, -1))]
    if perm == list(range(rank)):
        return call.forward(call.inputs[0])
    call.emit("Transpose", call.inputs, {"perm": perm})


@rewrites("Concat")
def concat(call: Call) -> None:
    """Concat {axis}; parts without elements go away."""
    axis = call.axis(0)
    parts = [t for t in call.inputs if call.graph.types[t].shape[axis] > 0]
    if len(parts) == 1:
        return call.forward(parts[0])
    call.emit("Concat", parts or call.inputs, {"axis": axis})


@rewrites("Split")
def split(call: Call) -> None:
    """Split {axis, split}: the size of every part. Parts without elements become constants."""
    axis = call.axis(0)
    types = [type_ for type_ in call.types if type_ is not None]
    if len(types) < len(call.types):
        raise UnsupportedForm("the sizes must be known at compile time")
    parts = list(zip(call.outputs, types, strict=True))
    for tensor, type_ in parts:
        if tensor and type_.size == 0:
            call.aliases[tensor] = call.constant(np.zeros(type_.shape, type_.dtype), "empty")
    parts = [(tensor, type_) for tensor, type_ in parts if type_.size > 0]
    call.outputs, call.types = [tensor for tensor, _ in parts], [type_ for _, type_ in parts]
    if len(parts) == 1:
        return call.forward(call.inputs[0])
    call.emit("Split", call.inputs[:1], {"axis": axis, "split": [t.shape[axis] for _, t in parts]})


@rewrites("Slice")
def slice_(call: Call) -> None:
    """Slice {starts, ends, axes, steps}: bounds inside the tensor, counted from the front.

    Counting down to the first element ends before it, which is -(size + 1), as ONNX has it.
    """
    shape = call.type(0).shape
    starts = call.ints(1, "starts", "where it starts") or []
    ends = call.ints(2, "ends", "where it ends") or []
    axes = call.ints(3, "axes", "the axes") or list(range(len(starts)))
    steps = call.ints(4, "steps", "the steps") or [1] * len(starts)
    axes = [normal_axis(axis, len(shape)) for axis in axes]
    kept: dict[str, list[int]] = {"starts": [], "ends": [], "axes": [], "steps": []}
    out_shape = list(shape)
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        start, end, step = slice(*bounds).indices(shape[axis])
        if (start, end, step) == (0, shape[axis], 1):
            continue
        out_shape[axis] = len(range(start, end, step))
        end = end if end >= 0 else -shape[axis] - 1
        for key, item in zip(kept, (start, end, axis, step), strict=True):
            kept[key].append(item)
    if not kept["axes"]:
        return call.forward(call.inputs[0])
    type_ = TensorType(tuple(out_shape), call.type(0).dtype)
    call.emit("Slice", call.inputs[:1], kept, type_)


@rewrites("Gather")
def gather(call: Call) -> None:
    """Gather {axis}. One constant index, or a run of them, is a Slice (and a Reshape)."""
    axis, shape, type_ = call.axis(0), call.type(0).shape, call.types[0]
    indices = call.value(1)
    if indices is None or type_ is None or indices.size == 0:
        return call.emit("Gather", call.inputs, {"axis": axis})
    flat = indices.reshape(-1).astype(np.int64)
    flat = np.where(flat < 0, flat + shape[axis], flat)
    first, count = int(flat[0]), flat.size
    if first < 0 or not np.array_equal(flat, np.arange(first, first + count)):
        return call.emit("Gather", call.inputs, {"axis": axis})
    part = (*shape[:axis], count, *shape[axis + 1 :])
    part_type = TensorType(part, call.type(0).dtype)
    attrs = {"starts": [first], "ends": [first + count], "axes": [axis], "steps": [1]}
    if part == type_.shape:
        if part == shape:
            return call.forward(call.inputs[0])
        return call.emit("Slice", call.inputs[:1], attrs)
    x = call.inputs[0]
    if part != shape:
        x = call.temp("Slice", [x], attrs, part_type, "slice")
    call.emit("Reshape", [x], {"shape": list(type_.shape)})


@rewrites("Expand")
def expand(call: Call) -> None:
    """Expand {shape}: the shape of the result."""
    if call.types[0] is None:
        raise UnsupportedForm("the new shape must be known at compile time")
    if call.out_type.shape == call.type(0).shape:
        return call.forward(call.inputs[0])
    call.emit("Expand", call.inputs[:1], {"shape": list(call.out_type.shape)})


@rewrites("Tile")
def tile(call: Call) -> None:
    """Tile {repeats}: one number an axis."""
    repeats = [int(item) for item in call.const(1, "how often to repeat")]
    if all(item == 1 for item in repeats):
        return call.forward(call.inputs[0])
    call.emit("Tile", call.inputs[:1], {"repeats": repeats})


@rewrites("Pad")
def pad(call: Call) -> None:
    """Pad {pads, value, mode}: all begins, then all ends, for every axis."""
    rank = call.type(0).rank
    given = call.ints(1, "pads", "the padding")
    if given is None:
        given = [int(item) for item in call.attrs.get("paddings", ())]
    axes = [normal_axis(axis, rank) for axis in call.ints(3, "axes", "the axes") or range(rank)]
    pads = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        pads[axis], pads[rank + axis] = given[i], given[len(axes) + i]
    if not any(pads):
        return call.forward(call.inputs[0])
    mode = call.attrs.get("mode", "constant")
    value = call.scalar(2, "value", "the padding's value", 0.0) if mode == "constant" else 0.0
    call.emit("Pad", call.inputs[:1], {"pads": pads, "value": value, "mode": mode})


@rewrites("DepthToSpace", "SpaceToDepth")
def depth_space(call: Call) -> None:
    """DepthToSpace {blocksize, mode}, SpaceToDepth {blocksize}."""
    attrs: dict[str, object] = {"blocksize": int(call.attrs["blocksize"])}
    if call.op == "DepthToSpace":
        attrs["mode"] = call.attrs.get("mode", "DCR")
    call.emit(call.op, call.inputs, attrs)


@rewrites("Resize", "Upsample")
def resize(call: Call) -> None:
    """Resize {scales, sizes, mode, ...}: both for every axis, and the result has shape `sizes`.

    `scales` are what coordinates are computed with: those given, else size out / size in.
    """
    shape, attrs = call.type(0).shape, call.attrs
    if call.types[0] is None:
        raise UnsupportedForm("the new size must be known at compile time")
    sizes = list(call.out_type.shape)
    if sizes == list(shape):
        return call.forward(call.inputs[0])
    legacy = call.op == "Upsample" or call.opset < 11
    given = call.attrs.get("scales")
    at = 1 if legacy else 2
    if call.has(at):
        given = call.const(at, "the scales")
    by_size = not legacy and call.has(3) and call.type(3).size > 0
    axes = [normal_axis(axis, len(shape)) for axis in attrs.get("axes") or range(len(shape))]
    scales = [1.0] * len(shape)
    if by_size or given is None:
        if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise UnsupportedForm("keep_aspect_ratio_policy")
        for axis in axes:
            scales[axis] = float(np.float32(sizes[axis]) / np.float32(shape[axis]))
    else:
        for axis, item in zip(axes, given, strict=True):
            scales[axis] = float(item)
    mode = attrs.get("mode", "nearest")
    coordinates = attrs.get("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize":
        raise UnsupportedForm("tf_crop_and_resize")
    if attrs.get("antialias"):
        raise UnsupportedForm("antialias")
    call.emit(
        "Resize",
        call.inputs[:1],
        {
            "scales": scales,
            "sizes": sizes,
            "mode": mode,
            "coordinate_transformation_mode": "asymmetric" if legacy else coordinates,
            "nearest_mode": "floor" if legacy else attrs.get("nearest_mode", "round_prefer_floor"),
            "cubic_coeff_a": float(attrs.get("cubic_coeff_a", -0.75)),
            "exclude_outside": int(attrs.get("exclude_outside", 0)),
        },
    )
