"""Words are paired only where 16 bits hold both, and as many as can be expected."""

import numpy as np
import pytest

from lowgemm.packing import ConvPacking, ConvShape, DotLayout
from lowgemm.quant import LARGEST_SUM, pair_words


def words(rng: np.random.Generator, orders: int, count: int, columns: int = 16) -> np.ndarray:
    """Sums of bell-shaped weights of one sign, as those of real layers are."""
    w = np.clip(np.rint(rng.normal(0, 26, (orders, count, columns, 2, 2))), -64, 64)
    signs = [np.maximum(sign * w, 0).sum(-1) for sign in (1, -1)]
    return np.stack(signs, -1).reshape(orders, count, -1).astype(int)


@pytest.mark.parametrize(("orders", "count"), [(3, 1), (40, 2), (70, 7), (9, 64), (3, 700)])
def test_an_order_has_every_word_and_its_pairs_fit(orders: int, count: int) -> None:
    sums = words(np.random.default_rng(count), orders, count)
    order, pairs = pair_words(sums)
    assert np.array_equal(np.sort(order, 1), np.broadcast_to(np.arange(count), order.shape))
    for each, found, number in zip(sums, order, pairs, strict=True):
        both = each[found[: 2 * number : 2]] + each[found[1 : 2 * number : 2]]
        assert (both <= LARGEST_SUM).all()
        left = each[found[2 * number :]]
        for i, word in enumerate(left):
            assert not (word + left[i + 1 :] <= LARGEST_SUM).all(1).any(), "two are left that fit"


def test_nearly_all_words_of_long_sums_are_paired() -> None:
    _, pairs = pair_words(words(np.random.default_rng(0), 8, 128))
    assert (pairs >= 62).all()


def test_a_word_that_fits_one_alone_gets_it() -> None:
    """The first word fits the second, third and fourth; the second and third fit it alone, and the fourth the fifth."""
    sums = np.array([[[20], [108], [108], [90], [38]]])
    order, pairs = pair_words(sums)
    assert pairs.tolist() == [2]
    assert sorted(map(sorted, order[0][:4].reshape(2, 2).tolist())) in (
        [[0, 1], [3, 4]],
        [[0, 2], [3, 4]],
    )


def test_sums_at_the_limit_fit_and_beyond_they_do_not() -> None:
    half = LARGEST_SUM // 2
    for more, pairs in ((0, 1), (1, 0)):
        _, found = pair_words(np.array([[[0, half], [LARGEST_SUM, half + more]]]))
        assert found.tolist() == [pairs]


@pytest.mark.parametrize("vectors", [1, 2, 4])
def test_a_packed_weight_in_pairs_is_the_same_weight(vectors: int) -> None:
    """Of an odd number of words, in every row of the window."""
    shape = ConvShape(1, 5, 5, 12, 30, (3, 3))
    packing = ConvPacking.of(shape, DotLayout(8, 4, "uint8", "int8", 4))
    rng = np.random.default_rng(vectors)
    weight = np.clip(np.rint(rng.normal(0, 20, (30, 12, 3, 3))), -64, 64).astype(np.int8)
    weight[3, 2] = -128  # beside zeros
    weight[3, 3] = 0
    packed = packing.pack(weight)
    assert packing.sums_fit(packed)
    paired, places = packing.pair(packed, vectors)
    assert places.shape == (4 // vectors, 3, 1, 10) and places.dtype == np.uint16
    for panel, row in np.ndindex(4, 3):
        *found, pairs = places[panel // vectors, row, 0]
        for word, place in enumerate(found):
            assert np.array_equal(paired[panel, row, 0, word], packed[panel, row, 0, place // 4])
        together = paired[panel, row, 0, : 2 * pairs].astype(int).reshape(pairs, 2, 8, 2, 2)
        for sign in (1, -1):
            assert np.maximum(sign * together, 0).sum((1, -1)).max(initial=0) <= LARGEST_SUM
    assert places[..., -1].max() > 0
