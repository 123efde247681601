"""Which weights let a kernel sum products of codes in 16 bits."""

import numpy as np

# uint8 by int8: 255 * 128 is the most that int16 holds, and -255 * 128 the least.
LARGEST_SUM = 128
# How many dot products of four bytes kernels sum in 16 bits, best first.
SUMMED = (2, 1)


def extreme_sums(runs: np.ndarray, summed: int) -> np.ndarray:
    """The largest sum of weights of one sign that a 16-bit lane multiplies, for each first index of `runs`.

    vpmaddubsw adds the products of neighbours; of `summed` times four bytes in a row, a lane gets the first or the
    second pair of each four. Whatever uint8 codes it multiplies them with, partial sums lie between 255 times the sum
    of the negative weights and 255 times that of the positive ones.

    Args:
        runs: `(channels, ..., length)`; lengths that are no multiple of 4 * `summed` are continued with zeros.

    Returns:
        `(channels,)` of the dtype of `runs`, int8 and int16 as int32.
    """
    kind = runs.dtype if runs.dtype.kind == "f" else np.int16 if runs.dtype == np.int8 else np.int32
    values = runs.astype(kind, copy=False)
    tail = -values.shape[-1] % (4 * summed)
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, tail)])
    lanes = padded.reshape(len(padded), -1, summed, 2, 2)
    found = np.maximum(_largest(np.maximum(lanes, 0)), _largest(np.maximum(-lanes, 0)))
    return found if runs.dtype.kind == "f" else found.astype(np.int32)


def _largest(lanes: np.ndarray) -> np.ndarray:
    """The largest sum over axes 2 and 4, for each index of the first; numpy's own sum takes several times as long."""
    pairs = lanes[..., 0] + lanes[..., 1]
    total = pairs[:, :, 0]
    for summed in range(1, lanes.shape[2]):
        total = total + pairs[:, :, summed]
    return total.reshape(len(lanes), -1).max(1)


def sums_fit(runs: np.ndarray, summed: int) -> bool:
    """Whether no uint8 codes make a sum of `extreme_sums` saturate."""
    return bool(extreme_sums(runs, summed).max() <= LARGEST_SUM)
