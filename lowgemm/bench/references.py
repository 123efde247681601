"""What the results of a model should be, and how far from it one that is right may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lowgemm.bench.compare import distance
from lowgemm.bench.engines import Arrays, OnnxRuntime, all_outputs

# Engines round a requantized value alike but for ties and the last bit of a float32 scale; such
# steps of one reach the output smaller than this. A wrong kernel is off by tens of percent.
TOLERANCE = 0.05


class References:
    """The results of ONNX Runtime's exact kernels, one for each form of a model.

    Where a model quantizes what float operators compute, as behind a layer normalisation, the order of their sums
    decides some codes, and layers behind them may make much of it. Then ONNX Runtime's own exact results differ: those
    of the operators one by one, and those of the operators as it joins them. Neither is righter, and a result is right
    that is as near to the second as the first is, if that is more than `TOLERANCE`.

    Args:
        forms: the same model as files.
        samples: the inputs of which results are compared.
    """

    def __init__(self, forms: Mapping[str, Path], samples: Sequence[Arrays]) -> None:
        self._forms, self._samples = forms, samples
        self._expected: dict[str, np.ndarray] = {}

    def verdict(self, form: str, found: np.ndarray) -> tuple[float, bool]:
        """The distance of a result of `form`, and whether it is right."""
        engine = partial(OnnxRuntime, self._forms[form], 1, exact=True)
        if form not in self._expected:
            self._expected[form] = all_outputs(engine(), self._samples)
        expected = self._expected[form]
        error = distance(found, expected)
        if error <= TOLERANCE:
            return error, True
        return error, error <= distance(all_outputs(engine(joined=False), self._samples), expected)
