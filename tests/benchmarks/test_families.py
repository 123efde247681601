"""What belongs to each family, and that its operators are called natively with the right results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import embedding, families, kernels, layers, weights
from benchmarks.embedding import Bags
from benchmarks.families import FAMILIES, Item
from benchmarks.layers import Layer
from benchmarks.lowgemm_layer import LowgemmOperator
from benchmarks.native_loops import NativeCalls, empty_regions
from benchmarks.weights import Product
from lowgemm import ops, reference
from lowgemm.bench.host import Setting
from lowgemm.bench.record import RecordFile, Row

SETTING = Setting(1, 0.0, "warm", {}, {})


@pytest.mark.parametrize(
    ("family", "count"),
    [("weights", 4 * 120), ("embedding", 20), ("models", 3), ("conv", 80), ("depthwise", 153)],
)
def test_rows_of_a_family_have_names_of_their_own(family: str, count: int) -> None:
    items = list(FAMILIES[family].items(Path("zoo")))
    assert len(items) >= count
    assert len({tuple(item.fields.values()) for item in items}) == len(items)


def test_only_what_the_record_lacks_is_measured(tmp_path: Path) -> None:
    def measure(name: str) -> Row:
        measured.append(name)
        return Row(name, "1", "u8s8", 1, "warm", 1, 1.0, {})

    measured: list[str] = []
    items = [Item({"name": name}, lambda *_, name=name: measure(name)) for name in "ab"]
    for _ in range(2):
        record = RecordFile(tmp_path / "record.json", {"host": "here"}, resume=True)
        for _ in families.run(items, [], SETTING, record):
            break  # as if it were stopped
    assert measured == ["a", "b"]
    assert not [*families.run(items, [], SETTING, record)]


def test_tables_fit_into_memory() -> None:
    for bags in embedding.tables():
        assert bags.rows * bags.row_bytes <= 1 << 29
        assert bags.rows * bags.row_bytes >= 60 << 20, "more than caches hold"


def test_weights_are_the_same_in_every_kind() -> None:
    for kind in weights.KINDS:
        product = Product(kind, 2, 8, 16)
        exact = product.weights
        assert np.array_equal(exact.astype(np.float16), exact)
        assert np.array_equal((exact.view(np.uint32) & 0xFFFF), np.zeros_like(exact))  # bfloat16
    assert Product("int4", 1, 8, 16).weight_bytes == 64


@pytest.mark.isa("avx2")
def test_native_calls_of_a_convolution_are_all_of_it() -> None:
    """Those of a transposed one, which are several."""
    layer = Layer.parse("test", "1x8x5x4 -> 8, 3x2 stride 2 pad 1 output_pad 1x0 transposed")
    contestant = LowgemmOperator(layer, 1)
    expected = kernels.expected_codes(layer)
    assert kernels.right(contestant.output(), expected)
    contestant._out[:] = 0
    assert len(contestant(3)) == 3
    assert kernels.right(contestant.output(), expected)


@pytest.mark.isa("avx2")
@pytest.mark.parametrize("kind", ["float16", "int4"])
def test_native_calls_multiply_floats(kind: str) -> None:
    product = Product(kind, 3, 40, 64)
    found = weights._make("lowgemm", product, 1).output()
    assert reference.gemm_f32(product.data[0], product.weights).holds(found)


@pytest.mark.isa("avx2")
def test_native_calls_sum_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_MOST_BYTES", 1 << 14)
    bags = Bags(4, 32, weighted=True)
    data: dict[str, Any] = bags.data
    expected = ops.embedding_bag(**data, bits=4)
    assert np.array_equal(embedding._make("lowgemm", bags, 1).output(), expected)


@pytest.mark.isa("avx2")
def test_native_calls_are_only_those_of_their_own_run() -> None:
    product = ops.pack_gemm(np.ones((4, 16), np.int8))
    a, out = np.ones((1, 4), np.uint8), np.zeros((1, 16), np.int32)
    calls = NativeCalls(product.bind(a, out))
    out[:] = 0
    product(a)
    assert len(calls(5)) == 5 and (out == 4).all()


def test_regions_without_work_are_timed() -> None:
    ops.set_num_threads(2)
    seconds = empty_regions(100)
    assert len(seconds) == 100 and min(seconds) > 0


def test_layers_of_lists_are_products_or_have_up_to_three_axes() -> None:
    ranks = {layer.rank for name in layers.FAMILIES for layer in layers.family(name)}
    assert ranks == {0, 1, 2, 3}
