"""The families of work that are measured: what is in each, and against whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click

from benchmarks import embedding, kernels, layers, weights, zoo
from lowgemm.bench.engines import PEERS as MODEL_PEERS
from lowgemm.bench.host import Setting
from lowgemm.bench.record import RecordFile, Row


@dataclass(frozen=True)
class Item:
    """One row to measure.

    Attributes:
        fields: those of the row that say which one it is.
        measure: given peers and the setting.
        prepare: what has to happen before anything of the run is measured.
    """

    fields: dict[str, str]
    measure: Callable[[Sequence[str], Setting], Row]
    prepare: Callable[[], object] = field(default=lambda: None)

    @property
    def text(self) -> str:
        """What --filter looks into."""
        return " ".join(self.fields.values())


@dataclass(frozen=True)
class Family:
    """Attributes:
    title: for the help.
    peers: that can be named, the default.
    seconds: measuring time of a row, the default.
    items: all of them, given the zoo's folder.
    """

    title: str
    peers: tuple[str, ...]
    seconds: float
    items: Callable[[Path], Iterator[Item]]


def run(
    items: Sequence[Item], against: Sequence[str], setting: Setting, record: RecordFile
) -> Iterator[Row]:
    """Measure what the record has not yet, and add it."""
    for item in items:
        if not record.has(**item.fields, state=setting.state):
            row = item.measure(against, setting)
            record.add(row)
            yield row


def _layers(name: str, directory: Path) -> Iterator[Item]:
    for layer in layers.family(name):
        fields = {"name": layer.name, "shape": layer.shape, "dtype": "u8s8"}
        yield Item(fields, partial(kernels.measure, layer))


def _models(directory: Path) -> Iterator[Item]:
    from benchmarks import models

    for name in zoo.MODELS:
        # Building models needs all cores, and must not happen within the measurement.
        prepare = partial(zoo.ensure, name, directory)
        yield Item({"name": name}, partial(models.measure, name, directory), prepare)


def _layer_family(name: str, title: str) -> Family:
    peers = kernels.GEMM_PEERS if name == "gemm" else kernels.PEERS
    title = f"{title}, uint8 by int8 per channel, requantized to uint8."
    return Family(title, peers, 3.0, partial(_layers, name))


def _weights(directory: Path) -> Iterator[Item]:
    for product in weights.products():
        yield Item(product.fields, partial(weights.measure, product))


def _embedding(directory: Path) -> Iterator[Item]:
    for bags in embedding.tables():
        yield Item(bags.fields, partial(embedding.measure, bags))


FAMILIES = {
    "gemm": _layer_family("gemm", "Matrix products"),
    "conv": _layer_family("conv", "Convolutions"),
    "depthwise": _layer_family("depthwise", "Depthwise convolutions"),
    "models": Family("Whole models at batch 1.", tuple(MODEL_PEERS), 20.0, _models),
    "weights": Family(
        "float32 by weights kept as float16, bfloat16, int8 or int4.", weights.PEERS, 1.0, _weights
    ),
    "embedding": Family("Sums of rows of int8 and int4 tables.", embedding.PEERS, 3.0, _embedding),
}


def chosen(name: str, pattern: str, directory: Path) -> list[Item]:
    """The items of a family with `pattern` in their name or shape.

    Raises:
        click.UsageError: there are none.
    """
    found = [item for item in FAMILIES[name].items(directory) if pattern in item.text]
    if not found:
        raise click.UsageError(f'nothing of {name} has "{pattern}" in its name or shape')
    return found
