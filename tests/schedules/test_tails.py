"""Where outputs do not fill the last vector, nothing is written behind them."""

import pytest

from conv_check import Conv, check
from isa import isas


@pytest.mark.parametrize("level", isas())
@pytest.mark.parametrize("out", [9, 25])
def test_tail_of_one_byte(level: str, out: int) -> None:
    """LLVM 22 makes a masked store of four bytes of it if its loop vectorizer gets the guarded loop."""
    check(Conv((1, 4, 1, 1), out), level, kinds=("random",))


@pytest.mark.parametrize("level", isas())
def test_tail_behind_a_residual(level: str) -> None:
    check(Conv((1, 4, 2, 2), 9), level, residual="uint8", kinds=("random",))
