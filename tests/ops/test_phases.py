"""The convolutions that one is taken apart into do all of its multiplications, each of them once, and no others."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lowgemm.ops._phases import Phase, apart, phases, transposed_size
from lowgemm.packing import Axis

AXES = st.builds(
    Axis,
    size=st.integers(1, 7),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 5),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    dilation=st.integers(1, 4),
)


@given(axis=AXES, more=st.integers(0, 4))
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


@given(axis=AXES, first=st.integers(0, 3), step=st.integers(1, 3))
def test_runs_of_outputs_multiply_what_their_windows_meet(
    axis: Axis, first: int, step: int
) -> None:
    assume(axis.size + axis.before + axis.after >= axis.span)
    outputs, products = [], []
    for part in apart(Phase(first, step, tuple(range(axis.kernel)), axis)):
        assert part.step == step and part.axis.kernel == len(part.taps)
        own = []
        for m in range(part.axis.out):
            output = (part.first - first) // step + m
            outputs.append(output)
            start = m * part.axis.stride - part.axis.before
            places = [start + k * part.axis.dilation for k in range(part.axis.kernel)]
            own.append([(output, *each) for each in zip(part.taps, places, strict=True)])
        for each in own:
            inside = [0 <= place < axis.size for _, _, place in each]
            assert all(inside) or inside == [False]
        products += [product for each in own for product in each if 0 <= product[2] < axis.size]
    assert outputs == list(range(axis.out))
    assert products == [
        (output, tap, place)
        for output in range(axis.out)
        for tap in range(axis.kernel)
        if 0 <= (place := output * axis.stride - axis.before + tap * axis.dilation) < axis.size
    ]
