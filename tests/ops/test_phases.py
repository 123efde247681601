"""The ordinary convolutions of a transposed one do all of its multiplications, each of them once, and no others."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lowgemm.ops._phases import phases, transposed_size
from lowgemm.packing import Axis


@given(
    axis=st.builds(
        Axis,
        size=st.integers(1, 7),
        kernel=st.integers(1, 6),
        stride=st.integers(1, 5),
        before=st.integers(0, 4),
        after=st.integers(0, 4),
        dilation=st.integers(1, 4),
    ),
    more=st.integers(0, 4),
)
def test_every_product_is_in_one_phase(axis: Axis, more: int) -> None:
    size = transposed_size(axis, more)
    assume(size > 0)
    wanted = {
        (q * axis.stride + t * axis.dilation - axis.before, t, q)
        for q in range(axis.size)
        for t in range(axis.kernel)
        if 0 <= q * axis.stride + t * axis.dilation - axis.before < size
    }
    found, outputs = [], []
    for phase in phases(axis, more):
        part = phase.axis
        assert (part.size, part.stride) == (axis.size, 1)
        assert part.kernel == max(1, len(phase.taps))
        for m in range(part.out):
            output = phase.first + m * phase.step
            outputs.append(output)
            for k, t in enumerate(phase.taps):
                q = m + k * part.dilation - part.before
                if 0 <= q < axis.size:
                    found.append((output, t, q))
    assert sorted(found) == sorted(wanted)
    assert sorted(outputs) == list(range(size))


@pytest.mark.parametrize(("stride", "taps"), [(2, [(3, 1), (2, 0)]), (3, [(3, 0), (1,), (2,)])])
def test_taps_are_shared_out_in_the_order_of_inputs(stride: int, taps: list) -> None:
    """The first phase has the taps that reach output 0."""
    axis = Axis(5, kernel=4, stride=stride, before=1 if stride == 2 else 0)
    assert [phase.taps for phase in phases(axis, 0)] == taps
