"""Which words of the left operand a product may add up in 16 bits."""

import numpy as np

from lowgemm.quant._sums import LARGEST_SUM

# Bytes of what is known at a time of which words fit which.
_AT_ONCE = 1 << 24


def pair_words(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders of words in which as many as possible follow each other in pairs that 16 bits hold, and how many pairs.

    A pair fits if nowhere the sums of its two words exceed `LARGEST_SUM` together. Those that fit the fewest others are
    paired first, as in Karp and Sipser's matching of random graphs, which leaves few of them alone.

    Args:
        sums: `(orders, words, n)` integers, none of them negative or above `LARGEST_SUM`.

    Returns:
        int32 `(orders, words)`, the pairs first, and int32 `(orders,)`, their numbers.
    """
    count, words, _ = sums.shape
    columns = np.ascontiguousarray(np.swapaxes(sums, 1, 2), np.uint8)
    order, pairs = np.empty((count, words), np.int32), np.empty(count, np.int32)
    step = max(1, _AT_ONCE // words**2)
    for first in range(0, count, step):
        part = slice(first, first + step)
        partners = _match(np.stack([_fit(each) for each in columns[part]]))
        own = np.arange(words)
        # Each pair's words by its first one's place, then those that are alone.
        rank = np.where(partners < 0, words, np.minimum(own, partners))
        order[part] = np.argsort(rank, 1, kind="stable")
        pairs[part] = (partners > own).sum(1)
    return order, pairs


def _fit(columns: np.ndarray) -> np.ndarray:
    """Whether each word fits each other one."""
    fit = ~np.eye(columns.shape[1], dtype=bool)
    for column in columns:
        fit &= column <= LARGEST_SUM - column[:, None]
    return fit


def _match(fit: np.ndarray) -> np.ndarray:
    """The partner of each word, -1 if it has none; `fit` `(orders, words, words)` is used up."""
    count, words, _ = fit.shape
    every = np.arange(count)
    partners = np.full((count, words), -1)
    others = fit.sum(2)
    while others.any():
        one = np.where(others > 0, others, words).argmin(1)
        two = np.where(fit[every, one], others, words).argmin(1)
        others -= fit[every, one]
        others -= fit[every, two]
        (at,) = fit[every, one, two].nonzero()  # elsewhere nothing fits any more
        one, two = one[at], two[at]
        partners[at, one], partners[at, two] = two, one
        for word in (one, two):
            fit[at, word] = False
            fit[at, :, word] = False
            others[at, word] = 0
    return partners
