"""The layout of panels, read back element by element."""

import numpy as np
import pytest

from lowgemm.packing_panels import WORD_FORMATS, PanelLayout
from lowgemm.targets import LEVELS

KINDS = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
    "bfloat16x2": np.uint16,
    "int8": np.int8,
    "int4": np.int8,
    "int64": np.int64,
}


def unpacked(packed: np.ndarray, kind: str, depth: int, columns: int) -> np.ndarray:
    """The elements, found as the docstring of the module says; those of several in a word as unsigned fields."""
    form = WORD_FORMATS[kind]
    width = packed.shape[2]
    found = np.empty((depth, columns), packed.dtype)
    for k in range(depth):
        for j in range(columns):
            word = packed[j // width, k // form.steps, j % width]
            if form.steps > 1:
                word = int(word) >> form.bits * (k % form.steps) & (1 << form.bits) - 1
            found[k, j] = word
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 16), (9, 33), (16, 130)], ids=str)
def test_packing_keeps_every_element(kind: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    weight = rng.integers(1, 16 if kind == "int4" else 100, size).astype(KINDS[kind])
    layout = PanelLayout(kind, 8, 2)
    packed = layout.pack(weight)
    assert packed.dtype == WORD_FORMATS[kind].dtype
    assert packed.shape == (layout.panels(size[1]), -(-size[0] // layout.format.steps), 16)
    assert (unpacked(packed, kind, *size) == weight).all()
    assert np.count_nonzero(unpacked(packed, kind, size[0], packed.shape[0] * 16)) == weight.size


def test_fields_of_negative_codes_do_not_spread() -> None:
    packed = PanelLayout("int4", 8, 1).pack(np.array([[-1], [0], [-8]], np.int8))
    assert packed[0, 0, 0] == 0x80F


def test_columns_are_padded_with_zeros() -> None:
    values = np.arange(1, 41, dtype=np.float32).reshape(2, 20)
    padded = PanelLayout("int8", 8, 2).pad_columns(values)
    assert padded.shape == (2, 32)
    assert (padded[:, :20] == values).all() and not padded[:, 20:].any()


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@pytest.mark.parametrize("size", [(1, 1), (7, 16), (9, 33)], ids=str)
def test_reads_for_a_step_end_with_its_element(kind: str, size: tuple[int, int]) -> None:
    weight = np.random.default_rng(3).integers(1, 100, size).astype(KINDS[kind])
    layout = PanelLayout(kind, 8, 2, shifted=True)
    packed, steps = layout.pack(weight), layout.format.steps
    words = -(-size[0] // steps)
    assert (
        packed.dtype == weight.dtype and packed.shape[1] >= words * steps * 16 + layout.format.lead
    )
    for k in range(size[0]):
        for j in range(size[1]):
            begin = (k // steps * 16 + j % 16) * steps + k % steps
            read = packed[j // 16, begin : begin + steps]
            assert int(read.copy().view(np.uint32)[0]) >> layout.lowest_bit == weight[k, j]
    assert np.count_nonzero(packed) == weight.size


def test_groups_begin_with_a_word_or_words_are_not_read_anew() -> None:
    avx2 = LEVELS["avx2"]
    for group, shifted in ((0, True), (8, True), (3, False)):
        assert PanelLayout.of("int8", 20, avx2, group).shifted == shifted
    assert not PanelLayout.of("int8", 20, LEVELS["avx512"]).shifted


@pytest.mark.parametrize("level", LEVELS)
def test_panels_are_no_wider_than_the_weight_needs(level: str) -> None:
    target = LEVELS[level]
    lanes, most = target.lanes, 2 if target.registers == 16 else 4
    for kind, own in (("int8", lanes), ("int64", lanes // 2)):
        for columns, vectors in ((1, 1), (own, 1), (own + 1, 2), (9 * own, most)):
            layout = PanelLayout.of(kind, columns, target)
            assert (layout.lanes, layout.vectors) == (own, vectors)
