"""Products with sparse weights equal the oracle, bit for bit, whatever the sizes and wherever the zeros are."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import tvm
from numpy.testing import assert_array_equal

from lowgemm import codegen, ops, reference, schedules, topi
from lowgemm.reference import SparseBlocks, SparseRows
from lowgemm.targets import LEVELS

from fences import fenced
from isa import isas
from kernels import full_range

OUTPUTS = 7
# No multiple of a block; blocks of which the last one sticks out by one, two and three.
DEPTHS = (1, 4, 37, 38, 39)
# One column; fewer than a vector of 8 or 16; whole vectors; tails; tiles of several vectors and what is left of them.
COLUMNS = (1, 3, 7, 8, 9, 16, 31, 32, 33, 67, 131)
INSTRUCTION = {4: "vpdpbusd", 2: "vpmaddwd"}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def sparse(rng, shape: tuple[int, int], density: float, dtype: str = "int8") -> np.ndarray:
    """A matrix of which the first row is empty and the last one full; the rest has `density`."""
    full = full_range(rng, shape, "int8") if dtype == "int8" else rng.normal(size=shape)
    kept = rng.random(shape) < density
    kept[0], kept[-1] = shape[0] == 1, True
    return np.where(kept, full, 0).astype(dtype)


def codes_of(output: ops.SparseOutput, weight: np.ndarray, x: np.ndarray, plus=None) -> np.ndarray:
    """The oracle's codes of weight times x."""
    acc = reference.sparse_gemm_i32(SparseBlocks.from_dense(weight), x, plus)
    zeros = np.asarray(output.weight_zero_point)
    offsets = weight.sum(1, dtype=np.int32) - zeros * weight.shape[1]
    return reference.requantize_transposed(
        acc,
        output.scale,
        output.out_scale,
        output.zero_point,
        x_zero_point=output.x_zero_point,
        weight_zero_point=output.weight_zero_point,
        weight_offsets=np.broadcast_to(offsets, weight.shape[:1]).astype(np.int32),
        x_sums=x.sum(0, dtype=np.int32),
        bias=output.bias,
        relu=output.relu,
    )


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("depth", DEPTHS)
def test_sums_of_blocks(rng, isa: str, depth: int) -> None:
    """Pairs that saturate 16 bits, sums that begin with any number and wrap."""
    weight = sparse(rng, (OUTPUTS, depth), 0.3)
    weight[1], weight[2] = 127, -128
    blocks = SparseBlocks.from_dense(weight)
    packed = ops.pack_sparse_gemm(weight, target=isa)
    given = ops.pack_sparse_gemm(blocks, target=isa)
    for columns in COLUMNS:
        x = full_range(rng, (depth, columns), "uint8")
        x[:, 0] = 255
        plus = full_range(rng, (OUTPUTS, columns), "int32")
        assert_array_equal(packed(x), reference.sparse_gemm_i32(blocks, x))
        assert_array_equal(given(x, plus=plus), reference.sparse_gemm_i32(blocks, x, plus))


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_codes(rng, isa: str) -> None:
    """All parameters for the tensor and for every output, with and without zero points."""
    depth = 37
    weight = sparse(rng, (OUTPUTS, depth), 0.3)
    bias = rng.normal(size=OUTPUTS).astype(np.float32)
    many = rng.uniform(0.01, 0.02, OUTPUTS).astype(np.float32)
    for output in (
        ops.SparseOutput(0.015, 4.5, 7),
        ops.SparseOutput(many, 4.5, 128, x_zero_point=43, bias=bias),
        ops.SparseOutput(many, 4.5, 77, 255, rng.integers(-128, 128, OUTPUTS), bias, relu=True),
        ops.SparseOutput(many, 4.5, 255, 0, -3),
    ):
        packed = ops.pack_sparse_gemm(weight, output=output, target=isa)
        for columns in (1, 9, 70):
            x = full_range(rng, (depth, columns), "uint8")
            plus = rng.integers(-10000, 10000, (OUTPUTS, columns)).astype(np.int32)
            assert_array_equal(packed(x), codes_of(output, weight, x))
            assert_array_equal(packed(x, plus=plus), codes_of(output, weight, x, plus))


@pytest.mark.parametrize("isa", isas())
def test_ties_go_to_even(isa: str) -> None:
    """Halves between codes, on both sides of zero, and numbers far beyond the codes."""
    weight = np.array([[1, 0, 0, 0]], np.int8)
    x = np.zeros((4, 256), np.uint8)
    x[0] = np.arange(256)
    output = ops.SparseOutput(1.0, 2.0, 100, x_zero_point=128)
    found = ops.pack_sparse_gemm(weight, output=output, target=isa)(x)
    assert_array_equal(found[0], np.clip(np.rint((np.arange(256) - 128) / 2) + 100, 0, 255))
    huge = ops.pack_sparse_gemm(weight, output=replace(output, scale=3e38), target=isa)(x)
    assert_array_equal(huge[0], np.where(np.arange(256) < 128, 0, 255) - 155 * (x[0] == 128))


@pytest.mark.parametrize("isa", isas())
def test_float_rows(rng, isa: str) -> None:
    """Sums in the order of the stored values, one rounding each."""
    depth = 37
    weight = sparse(rng, (OUTPUTS, depth), 0.3, "float32")
    rows = SparseRows.from_dense(weight)
    packed = ops.pack_sparse_gemm_f32(weight, target=isa)
    given = ops.pack_sparse_gemm_f32(rows, target=isa)
    for columns in (*COLUMNS, 4, 5, 64, 128, 200):
        x = rng.normal(size=(depth, columns)).astype(np.float32)
        plus = rng.normal(size=(OUTPUTS, columns)).astype(np.float32)
        assert_array_equal(packed(x), reference.sparse_gemm_f32(rows, x))
        assert_array_equal(given(x, plus=plus), reference.sparse_gemm_f32(rows, x, plus))


@pytest.mark.parametrize("isa", isas())
def test_nothing_else_is_touched(rng, isa: str) -> None:
    """Neither before nor behind inputs and outputs."""
    weight = sparse(rng, (3, 6), 0.5)
    output = ops.SparseOutput(0.01, 1.0)
    floats = weight.astype(np.float32)
    for columns in (1, 5, 11, 37):
        x = full_range(rng, (6, columns), "uint8")
        codes = np.zeros((3, columns), np.uint8)
        for at, out in fenced(x, codes):
            packed = ops.pack_sparse_gemm(weight, output=output, target=isa)
            assert packed(at, out) is out
            assert_array_equal(out, codes_of(output, weight, x))
        y = x.astype(np.float32)
        for at, out in fenced(y, np.zeros((3, columns), np.float32)):
            ops.pack_sparse_gemm_f32(floats, target=isa)(at, out)
            assert_array_equal(out, floats @ y)  # integers: exact in any order


@pytest.mark.parametrize("isa", isas())
def test_no_weights_and_no_columns(isa: str) -> None:
    x = np.full((5, 9), 200, np.uint8)
    nothing = ops.pack_sparse_gemm(np.zeros((3, 5), np.int8), target=isa)
    assert_array_equal(nothing(x), np.zeros((3, 9), np.int32))
    assert nothing(x[:, :0].copy()).shape == (3, 0)
    empty = ops.pack_sparse_gemm_f32(np.zeros((3, 5), np.float32), target=isa)
    assert_array_equal(empty(x.astype(np.float32)), np.zeros((3, 9), np.float32))


def test_threads(rng) -> None:
    """One and several threads within a call, and several calls at a time, agree."""
    weight = sparse(rng, (65, 300), 0.3)
    packed = ops.pack_sparse_gemm(weight)
    inputs = [full_range(rng, (300, columns), "uint8") for columns in (1, 70, 129, 500)]
    before = ops.get_num_threads()
    try:
        ops.set_num_threads(1)
        alone = [packed(x) for x in inputs]
        ops.set_num_threads(2)
        for x, wanted in zip(inputs, alone, strict=True):
            assert_array_equal(packed(x), wanted)
            assert_array_equal(wanted, weight.astype(np.int32) @ x.astype(np.int32))
        found: dict[int, np.ndarray] = {}

        def work(i: int) -> None:
            for _ in range(5):
                found[i] = packed(inputs[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, wanted in enumerate(alone):
            assert_array_equal(found[i], wanted)
    finally:
        ops.set_num_threads(before)


@pytest.mark.parametrize("level", LEVELS)
def test_instructions(level: str) -> None:
    """The widest vectors of the level, several in registers."""
    target = LEVELS[level]
    register = "zmm" if target.vector_bits == 512 else "ymm"
    for func, word in (
        (
            schedules.schedule_sparse_blocks(topi.SparseForm(), target),
            INSTRUCTION[target.dot_depth],
        ),
        (schedules.schedule_sparse_rows(False, target), "vfmadd"),
    ):
        module = tvm.compile(tvm.IRModule({"main": func}), codegen.llvm_target(target)).mod
        lines = [line.strip() for line in module.inspect_source("asm").splitlines()]
        found = [line for line in lines if word in line and register in line]
        assert len({line.rsplit("%", 1)[1] for line in found}) >= 4


BLOCKS = SparseBlocks(
    10,
    np.array([0, 2, 3], np.int32),
    np.array([0, 2, 1], np.int32),
    np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 1]], np.int8),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "weight.depth: expected an integer from 1, got 0"),
        (
            {"starts": np.array([0, 2, 3])},
            "weight.starts: expected int32 of shape (outputs + 1), got int64 of shape (3,)",
        ),
        ({"starts": np.array([0], np.int32)}, "weight.starts: expected at least 2, got 1"),
        (
            {"starts": np.array([0, 2, 2], np.int32)},
            "weight.starts: expected to go from 0 to 3, got 0 to 2",
        ),
        (
            {"starts": np.array([0, 4, 3], np.int32)},
            "weight.starts: expected no end before the start, got 4 to 3 of row 1",
        ),
        (
            {"blocks": np.array([0, 3, 1], np.int32)},
            "weight.blocks: expected 0 to 2, got 3 at position 1",
        ),
        (
            {"blocks": np.array([-1, 2, 1], np.int32)},
            "weight.blocks: expected 0 to 2, got -1 at position 0",
        ),
        (
            {"blocks": np.array([2, 0, 1], np.int32)},
            "weight.blocks: expected to rise within a row, got 0 after 2 in row 0",
        ),
        (
            {"blocks": np.array([2, 2, 1], np.int32)},
            "weight.blocks: expected to rise within a row, got 2 after 2 in row 0",
        ),
        (
            {"values": BLOCKS.values[:2]},
            "weight.values: expected int8 of shape (3, 4), got int8 of shape (2, 4)",
        ),
        (
            {"values": np.ones((3, 4), np.int8)},
            "weight.values: expected zeros from column 10 on, got [1 1 1 1] in block 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_blocks(change: dict, message: str) -> None:
    with pytest.raises(ops.OperandError) as error:
        ops.pack_sparse_gemm(replace(BLOCKS, **change))
    assert str(error.value) == message


def test_bad_rows() -> None:
    starts, values = np.array([0, 2], np.int32), np.ones(2, np.float32)
    for columns, message in (
        ([1, 5], "weight.columns: expected 0 to 4, got 5 at position 1"),
        ([3, 1], "weight.columns: expected to rise within a row, got 1 after 3 in row 0"),
    ):
        with pytest.raises(ops.OperandError) as error:
            ops.pack_sparse_gemm_f32(SparseRows(5, starts, np.array(columns, np.int32), values))
        assert str(error.value) == message
    with pytest.raises(ops.OperandError) as error:
        rows = SparseRows(5, starts, np.array([1, 2], np.int32), values.astype(np.float64))
        ops.pack_sparse_gemm_f32(rows)
    assert str(error.value) == (
        "weight.values: expected float32 of shape (2), got float64 of shape (2,)"
    )


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (
            np.zeros((2, 3), np.uint8),
            "weight: expected int8 of shape (outputs, depth), got uint8 of shape (2, 3)",
        ),
        (
            np.zeros(3, np.int8),
            "weight: expected int8 of shape (outputs, depth), got int8 of shape (3,)",
        ),
        (
            np.zeros((0, 3), np.int8),
            "weight: expected at least one row and one column, got shape (0, 3)",
        ),
    ],
    ids=["dtype", "axes", "empty"],
)
def test_bad_dense_weights(weight: np.ndarray, message: str) -> None:
    with pytest.raises(ops.OperandError) as error:
        ops.pack_sparse_gemm(weight)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0.0}, "scale: expected finite scales above zero, got 0.0"),
        ({"out_scale": np.nan}, "out_scale: expected finite scales above zero, got nan"),
        ({"zero_point": 256}, "zero_point: expected an integer from 0 to 255, got 256"),
        ({"x_zero_point": -1}, "x_zero_point: expected an integer from 0 to 255, got -1"),
        (
            {"weight_zero_point": 200},
            "weight_zero_point: expected integers from -128 to 127, got 200",
        ),
        (
            {"bias": np.zeros(2, np.int32)},
            "bias: expected float32 of shape (outputs), got int32 of shape (2,)",
        ),
        ({"scale": [1.0, 2.0, 3.0]}, "scale: expected 1 or 2 values, got 3"),
        ({"bias": np.zeros(3, np.float32)}, "bias: expected 2 values, got 3"),
        ({"weight_zero_point": [1, 2, 3]}, "weight_zero_point: expected 1 or 2 values, got 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_output(fields: dict, message: str) -> None:
    with pytest.raises(ops.OperandError) as error:
        output = ops.SparseOutput(**{"scale": 1.0, "out_scale": 1.0, **fields})
        ops.pack_sparse_gemm(BLOCKS, output=output)
    assert str(error.value) == message


def test_bad_calls() -> None:
    packed = ops.pack_sparse_gemm(BLOCKS)
    x = np.zeros((10, 4), np.uint8)
    for args, plus, message in (
        ((x.view(np.int8),), None, "x: expected uint8, got int8 of shape (10, 4)"),
        ((x[:9],), None, "x: expected uint8 of shape (10, columns), got uint8 of shape (9, 4)"),
        ((x[0],), None, "x: expected uint8 of shape (10, columns), got uint8 of shape (4,)"),
        ((x[:, ::2],), None, "x: expected a C-contiguous array, got strides (4, 2)"),
        (
            (x, np.zeros((2, 5), np.int32)),
            None,
            "out: expected int32 of shape (2, 4), got int32 of shape (2, 5)",
        ),
        (
            (x,),
            np.zeros((2, 3), np.int32),
            "plus: expected int32 of shape (2, 4), got int32 of shape (2, 3)",
        ),
    ):
        with pytest.raises(ops.OperandError) as error:
            packed(*args, plus=plus)
        assert str(error.value) == message
    plus = np.zeros((2, 4), np.int32)
    with pytest.raises(ops.OperandError) as error:
        packed(x, plus, plus=plus)
    assert str(error.value) == "out: expected memory apart from the inputs"
