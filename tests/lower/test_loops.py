"""The nest of loops that a copy takes is read off the positions of its elements."""

import numpy as np
import pytest

from lowgemm.lower._layout import loops

MAP = np.arange(4 * 5 * 6).reshape(4, 5, 6)


@pytest.mark.parametrize(
    ("index", "nest"),
    [
        (MAP, ((120,), (1,))),
        (MAP.transpose(2, 0, 1), ((6, 20), (1, 6))),
        (MAP[1:3], ((60,), (1,))),
        (MAP[:, 1:3], ((4, 12), (30, 1))),
        (MAP[:, ::2, ::-1], ((4, 3, 6), (30, 12, -1))),
        (MAP.transpose(1, 0, 2).reshape(10, 12), ((5, 4, 6), (6, 30, 1))),
        (MAP[:1, :1, :1], ((1,), (1,))),
    ],
)
def test_nest_of_a_copy(index: np.ndarray, nest: tuple) -> None:
    """Axes that lie together are one loop."""
    assert loops(index) == nest


def test_positions_that_no_nest_counts_through() -> None:
    """A part of an axis that another order then tears up."""
    joined = MAP.transpose(1, 0, 2).reshape(3, 40).transpose(1, 0)
    assert loops(joined) is None
    assert loops(np.array([0, 1, 2, 5, 6])) is None
