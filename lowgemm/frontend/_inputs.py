"""The model's inputs with every axis known: from the model, from the user, or a batch of one."""

import onnx

from lowgemm.errors import ModelError
from lowgemm.graph import TensorType


def input_types(
    model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]
) -> dict[str, TensorType]:
    """The type of every input of the model that is not a weight.

    Raises:
        ModelError: `shapes` names no input or contradicts the model, or an axis stays open.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise ModelError(f"a shape is given for {name!r}; the inputs are {_list(names)}")
    symbols = _bind_symbols(inputs, shapes)
    return {value.name: _input_type(value, shapes.get(value.name), symbols) for value in inputs}


def _bind_symbols(
    inputs: list[onnx.ValueInfoProto], shapes: dict[str, tuple[int, ...]]
) -> dict[str, int]:
    """What the given shapes say about the model's named axes: one name is one size everywhere."""
    symbols: dict[str, int] = {}
    for value in inputs:
        given = shapes.get(value.name)
        dims = value.type.tensor_type.shape.dim
        if given is None or len(given) != len(dims):
            continue
        for extent, dim in zip(given, dims, strict=True):
            if not any(letter.isalpha() for letter in dim.dim_param):
                continue  # no name: "?", as some exporters write, is another size every time
            if symbols.setdefault(dim.dim_param, extent) != extent:
                raise ModelError(
                    f"axis {dim.dim_param!r} is {symbols[dim.dim_param]} in one input and "
                    f"{extent} in {value.name!r}: give the inputs equal sizes there"
                )
    return symbols


def _input_type(
    value: onnx.ValueInfoProto, given: tuple[int, ...] | None, symbols: dict[str, int]
) -> TensorType:
    name = value.name
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"input {name!r} is not a tensor, which lowgemm does not support")
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        raise ModelError(f"input {name!r} has no element type") from None
    if given is not None and any(extent < 1 for extent in given):
        raise ModelError(f"shape {_text(given)} for input {name!r}: every size is at least 1")
    if not tensor.HasField("shape"):
        if given is None:
            raise ModelError(
                f"input {name!r} has no shape: give one, as --shape {name}=1x3x224x224"
            )
        return TensorType(tuple(given), dtype)
    dims = tensor.shape.dim
    if given is not None and len(given) != len(dims):
        raise ModelError(
            f"input {name!r} has {len(dims)} axes, and shape {_text(given)} has {len(given)}"
        )
    shape = []
    for axis, dim in enumerate(dims):
        # Some exporters write -1 or 0 for "open".
        fixed = dim.dim_value if dim.dim_value > 0 else None
        wanted = given[axis] if given is not None else symbols.get(dim.dim_param)
        if fixed is not None and wanted is not None and fixed != wanted:
            raise ModelError(
                f"input {name!r} has {fixed} elements along axis {axis}, and shape "
                f"{_text(given or ())} says {wanted}"
            )
        extent = fixed if fixed is not None else wanted
        if extent is None and axis == 0:
            extent = 1
        if extent is None:
            label = f" ({dim.dim_param})" if dim.dim_param else ""
            example = "x".join(str(d.dim_value) if d.dim_value > 0 else "N" for d in dims)
            raise ModelError(
                f"axis {axis}{label} of input {name!r} is open: give its shape, "
                f"as --shape {name}={example} with numbers for N"
            )
        shape.append(extent)
    return TensorType(tuple(shape), dtype)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _list(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
