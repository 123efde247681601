"""Convolutions as several: transposed ones as ordinary ones, and planes apart whose windows stick out.

A transposed convolution of stride s adds tap t of input q to output q * s + t * d - before. The outputs whose positions
leave the remainder `first` divided by s get only the taps with t * d = first + before modulo s, and those at
consecutive inputs: they are an ordinary convolution of stride 1 with a part of the filter, turned round. The s
convolutions of an axis multiply nothing by the zeros that the definition inserts between inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from math import gcd

from lowgemm.packing import Axis


@dataclass(frozen=True)
class Phase:
    """The outputs `first`, `first + step`, ... of one axis, as the ordinary convolution over `axis`.

    `taps` are those of the filter in the order in which the ordinary one has them; without any, `axis` has one tap, of
    zeros.
    """

    first: int
    step: int
    taps: tuple[int, ...]
    axis: Axis

    def trimmed(self) -> Phase:
        """The same outputs, without taps at the ends of the filter that meet nothing but padding."""
        taps = self.axis.useful_taps
        return replace(self, taps=self.taps[taps.start : taps.stop], axis=self.axis.cut(taps))


def apart(phase: Phase) -> list[Phase]:
    """The outputs of `phase` in runs whose windows' taps meet the input alike; the taps on padding are left out.

    An output of which no tap meets the input has the first, whose products the output stage takes off.
    """
    axis, found = phase.axis, []
    for _, outputs in groupby(range(axis.out), lambda output: axis.run(output, 1).useful_taps):
        first, *others = outputs
        run = axis.run(first, 1 + len(others))
        start = phase.first + first * phase.step
        found.append(Phase(start, phase.step, phase.taps, run).trimmed())
    return found


def transposed_size(axis: Axis, output_padding: int) -> int:
    """The output's extent of the transposed convolution over `axis`."""
    return (axis.size - 1) * axis.stride + axis.span + output_padding - axis.before - axis.after


def phases(axis: Axis, output_padding: int) -> list[Phase]:
    """The parts of the transposed convolution over `axis`; `output_padding` more outputs at its end."""
    stride, dilation = axis.stride, axis.dilation
    out = transposed_size(axis, output_padding)
    found = []
    for first in range(min(stride, out)):
        count = -(-(out - first) // stride)
        moved = {
            t: (first + axis.before - t * dilation) // stride
            for t in reversed(range(axis.kernel))
            if (first + axis.before - t * dilation) % stride == 0
        }
        taps, starts = tuple(moved), tuple(moved.values())
        size = max(1, len(taps))
        before = -starts[0] if taps else 0
        spacing = dilation // gcd(dilation, stride) if size > 1 else 1
        span = (size - 1) * spacing + 1
        after = count - 1 + span - axis.size - before
        part = Axis(axis.size, size, 1, before, after, spacing)
        found.append(Phase(first, stride, taps, part))
    return found
