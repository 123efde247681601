"""Tensor expressions over two or three spatial axes alike."""

from collections.abc import Callable

from tvm import te

from lowgemm.packing import FLAT, Axis, ConvShape


def block(name: str, axes: str, extents: tuple, element: Callable) -> te.Tensor:
    """A block over `axes`, names with a space between; the second one, a plane, is left out in two dimensions.

    `element` gets the indices of all axes.
    """
    names = axes.split()
    if len(names) > len(extents):
        del names[1]
    return te.compute(extents, element, name, varargs_names=names)


def image_axes(shape: ConvShape) -> list[Axis]:
    """The axes outside of a row: [planes and] rows."""
    return [shape.rows] if shape.planes == FLAT else [shape.planes, shape.rows]


def out_images(shape: ConvShape) -> tuple[int, ...]:
    """The extents outside of rows in the output: (batch [, planes])."""
    return (shape.batch,) if shape.planes == FLAT else (shape.batch, shape.planes.out)
