"""Products in float32: the real value, and how far rounding may take a kernel from it."""

from typing import NamedTuple

import numpy as np

from lowgemm.errors import InputError

UNIT_ROUNDOFF = 2.0**-24  # of float32: half the distance of 1 to the next number
BFLOAT16_ROUNDOFF = 2.0**-8
_LEAST = 2.0**-149  # the least positive float32: the step of what underflows


class Bounded(NamedTuple):
    """A real result, float64, and the most that a float32 computation of it may be off, element by element."""

    value: np.ndarray
    bound: np.ndarray

    def holds(self, found: np.ndarray) -> bool:
        """Whether every element of `found` lies within the bound."""
        return bool((np.abs(found.astype(np.float64) - self.value) <= self.bound).all())


def gemm_f32(
    lhs: np.ndarray,
    rhs: np.ndarray,
    plus: np.ndarray | None = None,
    *,
    roundings: int = 2,
    operand_roundoff: float = 0.0,
) -> Bounded:
    """plus + lhs times rhs, of real numbers, for kernels that sum in float32 in any order.

    It is the oracle of FBGEMM's `cblas_gemm_compute` (float16 weights) and of other weight-only products: `rhs` holds
    the weights as real numbers, `quant.from_bfloat16` or `quant.dequantize_groups` of the stored ones.

    An element passes at most n = depth + `roundings` roundings, each by a factor of at most 1 + u, u = 2**-24. So it is
    off by at most n u / (1 - n u) * (|plus| + sum_k |lhs| |rhs|) (Higham, "Accuracy and Stability of Numerical
    Algorithms", 3.1), and by half of the least float32 for each step that underflows. That grows with the depth: small
    errors are seen by data of small integers, whose sums are exact in float32.

    Args:
        lhs: float32 `(..., rows, depth)`.
        rhs: float32 or float16 `(depth, columns)`.
        plus: float32, broadcasts to `(..., rows, columns)`: a bias, or what the product is added to; None for nothing.
        roundings: those besides one for every product of the depth. The two are the addition of `plus`, and the product
            of scale and code, wherever the kernel takes it.
        operand_roundoff: by which factor operands of a product are rounded first, together: `BFLOAT16_ROUNDOFF` where a
            kernel rounds `lhs` to bfloat16 for `vdpbf16ps`.

    Returns:
        value and bound, float64 `(..., rows, columns)`.
    """
    if lhs.shape[-1] != rhs.shape[0]:
        raise InputError(f"lhs has depth {lhs.shape[-1]}, rhs {rhs.shape[0]} rows")
    a, b = lhs.astype(np.float64), rhs.astype(np.float64)
    value, size = a @ b, np.abs(a) @ np.abs(b)
    bound = operand_roundoff * size
    size = size + bound
    if plus is not None:
        value, size = value + plus, size + np.abs(plus)
    steps = rhs.shape[0] + roundings
    relative = steps * UNIT_ROUNDOFF / (1 - steps * UNIT_ROUNDOFF)
    return Bounded(value, bound + relative * size + steps * _LEAST)
