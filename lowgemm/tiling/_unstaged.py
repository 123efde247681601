"""What kernels that read the image where it lies have in common."""

from lowgemm.packing import FLAT, ConvShape

# Outputs from so many bytes on leave the second cache before they are all written (Zen 3, 512 KB): 50x50x576 takes half
# the time with prefetches, 70 of 14x14x544 at stride 2 too, 109x75x272 0.82, 38x38x544 (786 KB) 0.97; below, at 245 and
# 460 KB, it is 0.92 to 1.10.
_FAR_OUTPUT = 768 * 1000


def unstaged_stores(
    dtype: str, rounding: str, residual: str | None, table: bool, **_: object
) -> bool:
    """Whether kernels that read the image where it lies have such an output stage (the fields of `topi.OutputForm`):
    one that packs codes, and reads nothing else for them."""
    return dtype in ("uint8", "int8") and rounding == "rne" and residual is None and not table


def unstaged_prefetches(shape: ConvShape) -> bool:
    """Whether they prefetch the image and the outputs, of tiles that they compute whole.

    Convolutions over three axes compute for longer than they wait (64x32x56x56: 0.95 to 0.98 of the time).
    """
    return shape.planes == FLAT and shape.outputs >= _FAR_OUTPUT
