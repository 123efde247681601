"""Calibration samples: reading them, checking them against a model, handing them out in batches."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lowgemm.errors import CalibrationError
from lowgemm.graph import Graph, TensorType

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK"


def load_samples(path: str | Path) -> dict[str, np.ndarray]:
    """Read an .npz file with one array for every model input, the samples along its first axis.

    Raises:
        CalibrationError: the file is missing, no .npz file, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CalibrationError(f"sample file {path} does not exist")
    advice = "save the samples with numpy.savez(path, INPUT_NAME=array)"
    try:
        with path.open("rb") as file:
            magic = file.read(len(_NPY_MAGIC))
            file.seek(0)
            if magic == _NPY_MAGIC:
                raise CalibrationError(f"{path} holds one array without a name: {advice}")
            if not magic.startswith(_ZIP_MAGIC):
                raise CalibrationError(f"{path} is no .npz file: {advice}")
            with np.load(file, allow_pickle=False) as archive:
                return dict(archive)
    except CalibrationError:
        raise
    except Exception as error:  # zipfile, zlib and numpy have a kind for each kind of damage
        reason = " ".join(str(error).split())
        raise CalibrationError(f"cannot read {path}: {reason}") from None


def shapes_of_samples(
    model_ranks: Mapping[str, int], samples: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """What the samples say about input shapes that a model leaves open: one sample at a time."""
    shapes = {}
    for name, rank in model_ranks.items():
        array = np.asarray(samples[name]) if name in samples else None
        if array is None:
            continue
        if array.ndim == rank and rank > 0:
            shapes[name] = (1, *array.shape[1:])
        elif array.ndim == rank + 1:
            shapes[name] = array.shape[1:]
    return shapes


class Batches:
    """The samples as a model takes them: iterate for one dictionary of inputs a run.

    An array's first axis counts samples. The rest is either what the model's input has behind its
    batch axis (then as many samples as that axis says make one run), or the input's whole shape.

    Raises:
        CalibrationError: a name, count, dtype or shape does not fit, or a sample holds NaN or
            infinity.
    """

    def __init__(self, graph: Graph, samples: Mapping[str, np.ndarray]) -> None:
        wanted = ", ".join(repr(name) for name in graph.inputs)
        for name in samples:
            if name not in graph.inputs:
                raise CalibrationError(f"samples are named {name!r}; the model's inputs: {wanted}")
        for name in graph.inputs:
            if name not in samples:
                raise CalibrationError(f"no samples for the model's input {name!r}")
        self._arrays = {n: _checked(n, samples[n], graph.types[n]) for n in graph.inputs}
        self._types = {name: graph.types[name] for name in graph.inputs}
        counts = {name: len(array) for name, array in self._arrays.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise CalibrationError(f"the inputs have different numbers of samples: {listed}")
        self.count = min(self._runs(name) for name in self._arrays)
        if self.count == 0:
            name = next(name for name in self._arrays if self._runs(name) == 0)
            raise CalibrationError(
                f"{counts[name]} samples of {name!r} do not fill one batch "
                f"of {self._types[name].shape[0]}"
            )

    def _whole(self, name: str) -> bool:
        """Whether one sample is a whole input, its batch axis included."""
        return self._arrays[name].ndim == self._types[name].rank + 1

    def _runs(self, name: str) -> int:
        count = len(self._arrays[name])
        return count if self._whole(name) else count // self._types[name].shape[0]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for i in range(self.count):
            yield {name: self._run(name, i) for name in self._arrays}

    def _run(self, name: str, index: int) -> np.ndarray:
        array, type_ = self._arrays[name], self._types[name]
        if self._whole(name):
            part = array[index]
        else:
            batch = type_.shape[0]
            part = array[index * batch : (index + 1) * batch]
        return np.ascontiguousarray(part, type_.dtype).reshape(type_.shape)


def _checked(name: str, samples: np.ndarray, type_: TensorType) -> np.ndarray:
    array = np.asarray(samples)
    whole, rest = array.shape[1:] == type_.shape, array.shape[1:] == type_.shape[1:]
    if array.ndim == 0 or not (whole or (rest and type_.rank > 0)):
        expected = ", ".join(map(str, ("N", *type_.shape[1:])))
        found = ", ".join(map(str, array.shape))
        raise CalibrationError(
            f"samples of {name!r} have shape [{found}], and the model takes [{expected}] "
            "with N the number of samples"
        )
    if len(array) == 0:
        raise CalibrationError(f"there are zero samples of {name!r}")
    if not np.can_cast(array.dtype, type_.dtype, "same_kind"):
        raise CalibrationError(
            f"samples of {name!r} are {array.dtype.name}, and the model takes {type_.dtype}"
        )
    if array.dtype.kind == "f":
        finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if not finite.all():
            bad = int(np.argmin(finite))
            kind = "NaN" if np.isnan(array[bad]).any() else "infinity"
            raise CalibrationError(f"sample {bad} of {name!r} holds {kind}")
    return array
