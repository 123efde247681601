"""Products in 16-bit accumulators equal FBGEMM's definition, with weights split and whole."""

import numpy as np
import pytest
import tvm
from numpy.testing import assert_array_equal

from lowgemm import codegen, ops, reference, schedules, topi
from lowgemm.targets import LEVELS
from lowgemm.tiling import MOST_ROWS, acc16_configs, acc16_packing

from gemm_check import stage, with_stride
from isa import isas
from kernels import full_range

# An odd depth of two whole stretches of 256 and a bit more, and columns that fill no vector.
DEPTH, COLUMNS = 2 * 256 + 5, 21
ROWS = (1, 2, 7, 2 * MOST_ROWS + 3)
# Words of AT&T syntax: the product and the sum of one vector.
INSTRUCTIONS = ("vpmaddubsw", "vpaddsw")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(16)


def split_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What a product of split weights is: the dense part in 16 bits, the outliers in 32."""
    dense, sparse = reference.split_outliers(b)
    return reference.spmdm_i32(a, sparse, reference.gemm_acc16(a, dense))


def weights_with_outliers(rng, shape: tuple[int, int], density: float) -> np.ndarray:
    small = rng.integers(-64, 64, shape).astype(np.int8)
    return np.where(rng.random(shape) < density, full_range(rng, shape, "int8"), small)


@pytest.mark.parametrize("isa", isas())
def test_sums(rng, isa: str) -> None:
    """Pairs and sums that saturate either way, and any number of rows; zero points work on what remains."""
    a = full_range(rng, (max(ROWS), DEPTH), "uint8")
    b = full_range(rng, (DEPTH, COLUMNS), "int8")
    b[:, 0], b[:, 1], b[:, 2] = 127, -128, np.where(np.arange(DEPTH) % 4 < 2, 127, -128)
    packed = ops.pack_gemm_acc16(b, target=isa)
    sums = reference.gemm_acc16(a, b)
    assert (sums != reference.gemm_i32(a, b)).mean() > 0.5
    for rows in ROWS:
        assert_array_equal(packed(a[:rows]), sums[:rows])
    assert packed(a[:0]).shape == (0, COLUMNS)
    a[:] = 255
    assert_array_equal(packed(a), reference.gemm_acc16(a, b))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("size", [(1, 1), (2, 40), (256, 16)], ids="{0[0]}x{0[1]}".format)
def test_shapes(rng, isa: str, size: tuple[int, int]) -> None:
    """One element; one pair; one whole stretch and nothing after it, in one vector of columns."""
    a, b = full_range(rng, (9, size[0]), "uint8"), full_range(rng, size, "int8")
    packed = ops.pack_gemm_acc16(b, target=isa)
    for rows in (1, 9):
        assert_array_equal(packed(a[:rows]), reference.gemm_acc16(a[:rows], b))


@pytest.mark.parametrize("isa", isas())
def test_outliers(rng, isa: str) -> None:
    """None, few, and nothing else; the kernel is that of the dense product if there are none."""
    a = full_range(rng, (max(ROWS), DEPTH), "uint8")
    for density in (0.0, 0.001, 1.0):
        b = weights_with_outliers(rng, (DEPTH, COLUMNS), density)
        packed = ops.pack_gemm_acc16(b, outliers=True, target=isa)
        for rows in ROWS:
            assert_array_equal(packed(a[:rows]), split_product(a[:rows], b))


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_split_weights_are_exact_where_nothing_saturates(rng, isa: str) -> None:
    """Large weights, alternating in sign, which whole would saturate every sum."""
    a = full_range(rng, (8, DEPTH), "uint8")
    b = rng.integers(-4, 5, (DEPTH, COLUMNS)).astype(np.int8)
    a[:, 100:] //= 8
    b[20:30] = 127
    b[40:50] = -128
    wanted = reference.gemm_i32(a, b)
    assert_array_equal(ops.pack_gemm_acc16(b, outliers=True, target=isa)(a), wanted)
    assert (ops.pack_gemm_acc16(b, target=isa)(a) != wanted).any()


@pytest.mark.parametrize("isa", isas())
def test_output_stage_groups_and_layouts(rng, isa: str) -> None:
    """All that the exact product has: groups, zero points, transposed and strided operands, another stage later."""
    groups, depth = 2, 37
    a = full_range(rng, (11, groups * depth), "uint8")
    b = weights_with_outliers(rng, (groups * depth, COLUMNS), 0.1)
    b[depth:] = np.clip(b[depth:], -64, 63)  # no outliers in the second group
    zeros = rng.integers(-9, 9, groups * COLUMNS)
    bias = rng.integers(-1000, 1000, groups * COLUMNS, np.int32)
    output = ops.Output("uint8", multiplier=0.003, zero_point=5, bias=bias, activation="relu")
    parts = zip(np.split(a, groups, 1), np.split(b, groups), strict=True)
    sums = np.hstack([split_product(*part) for part in parts])
    common = {
        "lhs_zero_point": 43,
        "rhs_zero_point": zeros,
        "row_sums": reference.row_sums(a, groups),
        "column_offsets": reference.column_offsets(b, zeros, groups),
        "groups": groups,
    }
    wanted = reference.output_stage(sums, **common, **stage(output, groups * COLUMNS))
    assert len(np.unique(wanted)) > 20
    turned = np.hstack(np.split(b, groups)).T
    for weight, transposed in ((b, False), (turned, True)):
        packed = ops.pack_gemm_acc16(
            weight,
            a_zero_point=43,
            b_zero_point=zeros,
            groups=groups,
            transposed=transposed,
            outliers=True,
            output=output,
            target=isa,
        )
        for view in (a, np.asfortranarray(a), with_stride(a, 9)):
            assert_array_equal(packed(view), wanted)
        raw = packed.with_output(ops.Output(bias=bias))
        assert_array_equal(raw(a), reference.output_stage(sums, dtype="int32", bias=bias, **common))
        out = np.empty_like(wanted)
        packed.bind(a, out)()
        assert_array_equal(out, wanted)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("outliers", [False, True])
def test_batches(rng, isa: str, outliers: bool) -> None:
    """Each left matrix with its own right one, of which one has no outliers, and zero points of its own."""
    a, b = full_range(rng, (3, 9, 37), "uint8"), full_range(rng, (3, 37, COLUMNS), "int8")
    b[1] //= 2
    zeros = rng.integers(-9, 9, 3)
    product = split_product if outliers else reference.gemm_acc16
    wanted = [
        reference.output_stage(
            product(left, right),
            dtype="int32",
            lhs_zero_point=43,
            rhs_zero_point=int(zero),
            row_sums=reference.row_sums(left),
            column_offsets=reference.column_offsets(right, int(zero)),
        )
        for left, right, zero in zip(a, b, zeros, strict=True)
    ]
    options = {"a_zero_point": 43, "b_zero_point": zeros, "outliers": outliers, "target": isa}
    assert_array_equal(ops.pack_gemm_acc16(b, **options)(a), wanted)
    turned = np.ascontiguousarray(np.swapaxes(b, 1, 2))
    assert_array_equal(ops.pack_gemm_acc16(turned, transposed=True, **options)(a), wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_instructions(level: str) -> None:
    """All levels multiply in 16 bits, and keep accumulators in registers where they do."""
    target = LEVELS[level]
    packing = acc16_packing(512, 256, target)
    config = acc16_configs(packing, target)[-1]
    form = topi.Acc16Form(config.rows, 512, 256, False)
    func = schedules.schedule_qgemm_acc16(topi.qgemm_acc16(form, packing), packing, form, config)
    module = tvm.compile(tvm.IRModule({"main": func}), codegen.llvm_target(target)).mod
    lines = [line.strip() for line in module.inspect_source("asm").splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith(INSTRUCTIONS[1]))
    start = max(i for i in range(first) if lines[i].startswith(".LBB"))
    stop = next(i for i in range(first, len(lines)) if lines[i].startswith("j"))
    loop = lines[start:stop]
    steps = config.rows * config.vectors
    register = "zmm" if target.vector_bits == 512 else "ymm"
    for word in INSTRUCTIONS:
        found = [line for line in loop if line.startswith(word)]
        assert len(found) == steps and all(line.endswith(tuple("0123456789")) for line in found)
        assert all(register in line for line in found)
    assert not [line for line in loop if line.startswith("vmov") and line.endswith(")")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": np.zeros((4, 4), np.uint8)}, "b: expected int8, got uint8 of shape (4, 4)"),
        (
            {"b": np.zeros((1, 1, 4, 4), np.int8)},
            "b: expected 2 axes, or 3 for a batch, got shape (1, 1, 4, 4)",
        ),
        (
            {"b": np.zeros((2, 4, 4), np.int8), "groups": 2},
            "groups: a batch of right matrices takes none",
        ),
        (
            {"b": np.zeros((0, 4), np.int8)},
            "b: expected at least one row and one column, got shape (0, 4)",
        ),
        ({"groups": 3}, "groups: 3 do not divide b of shape (4, 4)"),
        ({"groups": 0}, "groups: expected an integer from 1, got 0"),
        ({"a_zero_point": 256}, "a_zero_point: expected an integer from 0 to 255, got 256"),
        ({"b_zero_point": [1, 2]}, "b_zero_point: expected 1, 1 or 4 values, got 2"),
        (
            {"b": np.zeros((65794, 1), np.int8)},
            "b: depth 65794 is too large for exact 32-bit sums; at most 65793",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_weights(change: dict, message: str) -> None:
    with pytest.raises(ops.OperandError) as error:
        ops.pack_gemm_acc16(**{"b": np.zeros((4, 4), np.int8), **change})
    assert str(error.value) == message


def test_bad_left_matrix() -> None:
    packed = ops.pack_gemm_acc16(np.zeros((4, 4), np.int8))
    with pytest.raises(ops.OperandError) as error:
        packed(np.zeros((2, 4), np.int8))
    assert str(error.value) == "a: expected uint8 of shape (..., rows, 4), got int8 of shape (2, 4)"
