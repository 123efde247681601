"""Packed products equal the exact integers, whatever the dtypes, layouts, zero points and numbers of rows."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from lowgemm import ops
from lowgemm.tiling import MOST_ROWS

from gemm_check import Product, operands, same, with_stride
from isa import isas
from kernels import HARD_DATA, full_range

# Neither a multiple of what a dot product sums nor of a vector's lanes.
DEPTH, COLUMNS = 37, 21
# Most tests are about layouts, and share the kernels of products with this zero point.
ZERO = 2
# Every tail of a tile, whole tiles, and one with each tail.
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, MOST_ROWS + 3, 3 * MOST_ROWS + 5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("b_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_dtypes(rng, isa: str, a_dtype: str, b_dtype: str) -> None:
    for kind in HARD_DATA:
        a, b = operands(rng, 37, DEPTH, COLUMNS, a_dtype, b_dtype, kind)
        product = Product(b, a_dtype)
        packed = product.pack(isa)
        for rows in ROWS:
            product.check(packed, a[:rows])


@pytest.mark.parametrize("isa", isas("avx2", "avx512"))
@pytest.mark.parametrize("columns", [21, 40, 96], ids="{}-columns".format)
def test_words_are_summed_in_pairs_if_weights_let_them(rng, isa: str, columns: int) -> None:
    """With one and two panels to an order, several orders to a tile of few rows, and all that products take."""
    a, b = operands(rng, 37, 74, columns, kind="words-in-pairs")
    scale = ops.Output(
        "uint8", multiplier=2e-4, zero_point=9, bias=np.arange(columns, dtype=np.int32)
    )
    real = ops.Output("float32", multiplier=2e-4)
    for product, x in (
        (Product(b, a_zero_point=3), a),
        (Product(b, "int8", 3), (a.astype(int) - 128).astype(np.int8)),
        (Product(b, output=scale), a),
        (Product(b.T.copy(), transposed=True), np.asfortranarray(a)),
        (Product(np.concatenate([b, b[:, ::-1]]), groups=2), np.concatenate([a, a], 1)),
        (Product(np.stack([b, b[:, ::-1]])), np.stack([a, a])),
        (Product(b, quantize=ops.Quantize("row"), output=real), a.astype(np.float32) / 7),
        (Product(b, quantize=ops.Quantize("static", 0.5, 7)), a.astype(np.float32) / 7),
    ):
        packed = product.pack(isa)
        assert packed.target.paired
        for rows in ROWS:
            product.check(packed, x[..., :rows, :])


@pytest.mark.parametrize("isa", isas("avx2", "avx512"))
def test_words_are_not_paired_where_one_matrix_has_few_that_fit(isa: str) -> None:
    """Those of a batch share their kernels, and all orders of a matrix have as many pairs."""
    fitting = np.tile(np.repeat([52, 12], 8), 4).astype(np.int8)[:, None] * np.ones(
        (1, 16), np.int8
    )
    large = np.full_like(fitting, 64)
    assert ops.pack_gemm(fitting, target=isa).target.paired
    assert not ops.pack_gemm(large, target=isa).target.paired
    assert not ops.pack_gemm(np.stack([fitting, large]), target=isa).target.paired
    mixed = np.concatenate([fitting, large], 1)
    assert not ops.pack_gemm(np.tile(mixed, 16), target=isa).target.paired


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("b_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_zero_points(rng, isa: str, a_dtype: str, b_dtype: str) -> None:
    """Both ends of the range and what lies between, on both sides; for the tensor and for every column."""
    a, b = operands(rng, 11, DEPTH, COLUMNS, a_dtype, b_dtype)
    low_a, low_b = np.iinfo(a_dtype).min, np.iinfo(b_dtype).min
    columns = low_b + rng.integers(0, 256, COLUMNS)
    for a_zero in (low_a, low_a + 255, low_a + 43):
        for b_zero in (low_b, low_b + 255, 5, columns):
            product = Product(b, a_dtype, a_zero, b_zero)
            product.check(product.pack(isa), a)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    "size",
    [(1, 1), (2, 9), (3, 8), (4, 17), (6, 1), (33, 100), (64, 32)],
    ids="{0[0]}x{0[1]}".format,
)
def test_shapes(rng, isa: str, size: tuple[int, int]) -> None:
    """One element, one column, depths of every remainder by four, vectors that are full, and those that are not."""
    depth, columns = size
    for kind in ("random", "saturating"):
        a, b = operands(rng, 13, depth, columns, "int8", "int8", kind)
        product = Product(b, "int8", -3)
        packed = product.pack(isa)
        for rows in (1, 3, 13):
            product.check(packed, a[:rows])


@pytest.mark.parametrize("isa", isas())
def test_largest_depth(isa: str) -> None:
    """Sums that reach the last of 32 bits."""
    depth = (2**31 - 1) // (255 * 128)
    a, b = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    assert Product(b).pack(isa)(a).tolist() == [[-255 * 128 * depth]]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_layouts_of_the_left_matrix(rng, isa: str, a_dtype: str) -> None:
    """Leading dimensions, transposed matrices, and views that overlap."""
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), a_dtype, 3, ZERO)
    packed = product.pack(isa)
    for rows in (1, 5, 19):
        a = full_range(rng, (rows, DEPTH), a_dtype)
        turned = np.ascontiguousarray(a.T).T
        for view in (
            a,
            with_stride(a, 9),
            turned,
            with_stride(turned.T, 3).T,
            np.asfortranarray(a),
            sliding_window_view(full_range(rng, (rows + DEPTH - 1,), a_dtype), DEPTH),
        ):
            product.check(packed, view)
        assert (packed(turned) == packed(a)).all()


@pytest.mark.parametrize("isa", isas())
def test_first_call_decides_nothing(rng, isa: str) -> None:
    """What numpy calls contiguous has any distance between rows where there is one row or none."""
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), b_zero_point=ZERO)
    many = full_range(rng, (4 * MOST_ROWS + 1, DEPTH + 4), "uint8")
    for first in (many[:1, :DEPTH], many[0, :DEPTH][None], many[:0, :DEPTH], many[::50, :DEPTH]):
        packed = product.pack(isa)
        product.check(packed, first)
        product.check(packed, np.ascontiguousarray(many[:, :DEPTH]))


@pytest.mark.parametrize("isa", isas())
def test_axes_of_size_one_have_no_layout(rng, isa: str) -> None:
    """A column or a row that numpy.newaxis made, or that was cut out of a matrix."""
    line = full_range(rng, (100,), "int8")
    column = Product(full_range(rng, (1, 1), "int8"), "int8")
    packed = column.pack(isa)
    for view in (line[:9, None], line[:18:2, None], line.reshape(10, 10)[:, 3:4]):
        column.check(packed, view)
    out = np.empty(9, np.int32)
    packed(line[:9, None], out[:, None])
    same(out[:, None], column.expected(line[:9, None]))

    row = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), b_zero_point=ZERO)
    packed = row.pack(isa)
    line = full_range(rng, (DEPTH,), "uint8")
    square = full_range(rng, (DEPTH, DEPTH), "uint8")
    for view in (line[None], square[:, 2][None], square[:, 2:3].T):
        row.check(packed, view)


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("rows", [1, 19])
def test_given_output(rng, isa: str, rows: int) -> None:
    """It is written where it is wanted, and nowhere else."""
    a, b = operands(rng, rows, DEPTH, COLUMNS)
    product = Product(b, b_zero_point=ZERO)
    packed = product.pack(isa)
    wanted = product.expected(a)
    plain = np.empty((rows, COLUMNS), np.int32)
    assert packed(a, plain) is plain
    same(plain, wanted)
    for view in (a, np.asfortranarray(a)):
        wide = np.full((rows, COLUMNS + 6), -7, np.int32)
        packed(view, wide[:, 3:-3])
        same(wide[:, 3:-3], wanted)
        assert (wide[:, :3] == -7).all() and (wide[:, -3:] == -7).all()


@pytest.mark.parametrize("isa", isas())
def test_arrays_at_any_address(rng, isa: str) -> None:
    """Elements are aligned, vectors need not be."""
    a, b = operands(rng, 9, DEPTH, COLUMNS)
    bias = np.arange(COLUMNS, dtype=np.int32)
    product = Product(b, b_zero_point=ZERO, output=ops.Output(bias=bias))
    packed, wanted = product.pack(isa), product.expected(a)
    for offset in (1, 3, 13):
        moved = np.empty(a.size + offset, np.uint8)[offset:].reshape(a.shape)
        moved[...] = a
        out = np.empty(wanted.size + offset, np.int32)[offset:].reshape(wanted.shape)
        same(packed(moved, out), wanted)


@pytest.mark.parametrize("isa", isas())
def test_no_rows(rng, isa: str) -> None:
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), b_zero_point=ZERO)
    packed = product.pack(isa)
    for shape in ((0, DEPTH), (2, 0, DEPTH), (0, 3, DEPTH)):
        found = packed(np.empty(shape, np.uint8))
        assert (found.shape, found.dtype) == ((*shape[:-1], COLUMNS), np.int32)
    a = full_range(rng, (3, DEPTH), "uint8")
    product.check(packed, a)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_groups(rng, isa: str, groups: int, transposed: bool) -> None:
    depth, columns = DEPTH, COLUMNS
    shape = (groups * columns, depth) if transposed else (groups * depth, columns)
    b = full_range(rng, shape, "int8")
    for b_zero in (ZERO, np.arange(groups) - 3, np.arange(groups * columns) - 3):
        product = Product(b, "uint8", 77, b_zero, groups, transposed)
        packed = product.pack(isa)
        assert (packed.depth, packed.columns, packed.groups) == (depth, groups * columns, groups)
        for rows in (0, 1, 9):
            a = full_range(rng, (rows, groups * depth), "uint8")
            product.check(packed, a)
        product.check(packed, np.asfortranarray(a))


@pytest.mark.parametrize("isa", isas())
def test_transposed_right_matrix(rng, isa: str) -> None:
    a, b = operands(rng, 5, DEPTH, COLUMNS)
    for given in (b.T, np.ascontiguousarray(b.T), with_stride(b.T, 5)):
        product = Product(given, b_zero_point=ZERO, transposed=True)
        product.check(product.pack(isa), a)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_batches(rng, isa: str, transposed: bool) -> None:
    """Each left matrix has its own right one, and its own zero points if there are several."""
    batch = 3
    shape = (batch, COLUMNS, DEPTH) if transposed else (batch, DEPTH, COLUMNS)
    b = full_range(rng, shape, "int8")
    a = full_range(rng, (batch, 7, DEPTH), "uint8")
    turned = a.swapaxes(1, 2).copy().swapaxes(1, 2)
    for b_zero in (ZERO, np.arange(batch) - 8, np.arange(batch * COLUMNS) - 30):
        product = Product(b, "uint8", 200, b_zero, transposed=transposed)
        packed = product.pack(isa)
        for view in (a, a[:, :1], a[:, ::2], with_stride(a, 3), turned):
            product.check(packed, view)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("hard", [0, 1])
def test_weights_of_one_product_need_not_be_alike(rng, isa: str, hard: int) -> None:
    """Sums of 16 bits hold the products of one group, or one matrix of a batch, and not of the other."""
    each = [operands(rng, 5, DEPTH, COLUMNS, kind="ties") for _ in range(2)]
    each[hard] = operands(rng, 5, DEPTH, COLUMNS, kind="saturating")
    (a0, b0), (a1, b1) = each
    groups = Product(np.concatenate([b0, b1]), groups=2)
    groups.check(groups.pack(isa), np.hstack([a0, a1]))
    batch = Product(np.stack([b0, b1]))
    batch.check(batch.pack(isa), np.stack([a0, a1]))


@pytest.mark.parametrize("isa", isas())
def test_leading_axes_share_the_right_matrix(rng, isa: str) -> None:
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), b_zero_point=ZERO)
    packed = product.pack(isa)
    a = full_range(rng, (2, 3, 4, DEPTH), "uint8")
    for view in (a, a[:, ::2], a.swapaxes(0, 1), a[..., :1, :]):
        product.check(packed, view)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("a_dtype", "b_zero"), [("uint8", 3), ("int8", 0)])
def test_zero_points_of_rows(rng, isa: str, a_dtype: str, b_zero: int) -> None:
    low = np.iinfo(a_dtype).min
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), a_dtype, "row", b_zero)
    packed = product.pack(isa)
    for rows in (0, 1, 8, 19):
        a = full_range(rng, (rows, DEPTH), a_dtype)
        zeros = rng.integers(low, low + 256, rows).astype(np.int32)
        product.check(packed, a, row_zero_point=zeros)
    spaced = np.repeat(zeros, 2)[::2]
    product.check(packed, a, row_zero_point=spaced)
    product.check(packed, np.stack([a, a]), row_zero_point=np.stack([zeros, zeros - 1]))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("number", [np.int64, np.uint8], ids=lambda kind: kind.__name__)
def test_numpy_integers_are_integers(rng, isa: str, number: type) -> None:
    b = full_range(rng, (2 * DEPTH, COLUMNS), "int8")
    given = {"a_zero_point": number(100), "b_zero_point": number(7), "groups": number(2)}
    a = full_range(rng, (3, 2 * DEPTH), "uint8")
    same(ops.pack_gemm(b, **given, target=isa)(a), Product(b, "uint8", 100, 7, 2).expected(a))


@pytest.mark.parametrize("isa", isas())
def test_bound_arrays(rng, isa: str) -> None:
    """A bound call takes what the arrays hold when it is called."""
    product = Product(full_range(rng, (2 * DEPTH, COLUMNS), "int8"), b_zero_point=ZERO, groups=2)
    packed = product.pack(isa)
    a, out = np.empty((9, 2 * DEPTH), np.uint8), np.empty((9, 2 * COLUMNS), np.int32)
    call = packed.bind(a, out)
    for _ in range(2):
        a[...] = full_range(rng, a.shape, "uint8")
        call()
        same(out, product.expected(a))


@pytest.mark.parametrize("isa", isas())
def test_dlpack(rng, isa: str) -> None:
    """A tensor of another library, without a copy."""

    class Tensor:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    a, b = operands(rng, 6, DEPTH, COLUMNS)
    product = Product(b, b_zero_point=ZERO)
    packed = ops.pack_gemm(Tensor(b), b_zero_point=ZERO, target=isa)
    out = np.empty((6, COLUMNS), np.int32)
    found = packed(Tensor(a), Tensor(out))
    same(out, product.expected(a))
    assert np.shares_memory(found, out)


@pytest.mark.parametrize("isa", isas())
def test_with_output_leaves_the_first_as_it_is(rng, isa: str) -> None:
    a, b = operands(rng, 6, DEPTH, COLUMNS)
    sums = Product(b, "uint8", 9, ZERO)
    other = Product(b, "uint8", 9, ZERO, output=ops.Output("uint8", multiplier=1e-3, zero_point=7))
    packed = sums.pack(isa)
    same(packed.with_output(other.output)(a), other.expected(a))
    same(packed(a), sums.expected(a))


STATIC = ops.Quantize("static", 0.03, 121)
RANGES = {"static": STATIC, "tensor": ops.Quantize("tensor"), "row": ops.Quantize("row")}


def floats(rng: np.random.Generator, rows: int, depth: int) -> np.ndarray:
    """Rows of several ranges: both signs, one sign, zeros alone, tiny ones, one large element."""
    a = rng.normal(0, 1, (rows, depth)).astype(np.float32)
    for row in range(rows):
        match row % 7:
            case 1:
                a[row] = np.abs(a[row])
            case 2:
                a[row] = -np.abs(a[row])
            case 3:
                a[row] = 0
            case 4:
                a[row] *= np.float32(1e-7)
            case 5:
                a[row, rng.integers(depth)] = 1e4
            case 6:
                a[row] = np.abs(a[row]) * np.float32(1e-39)
    return a


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("how", RANGES)
def test_quantized_while_packed(rng, isa: str, how: str) -> None:
    """The codes, zero points and scales are those of `quant`; the sum then is exact."""
    output = ops.Output("float32", multiplier=rng.uniform(0.001, 0.01, COLUMNS).astype(np.float32))
    product = Product(
        full_range(rng, (DEPTH, COLUMNS), "int8"), quantize=RANGES[how], output=output
    )
    packed = product.pack(isa)
    for rows in (1, 6, 30):
        a = floats(rng, rows, DEPTH)
        for view in (a, np.asfortranarray(a), with_stride(a, 3)):
            product.check(packed, view)
    assert packed(a[:0]).shape == (0, COLUMNS)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("depth", [15, 48])
def test_ranges_of_rows(rng, isa: str, depth: int) -> None:
    """Depths below, at and above what the search for the ends takes at a time; ends at every position."""
    b = np.ones((depth, 1), np.int8)
    product = Product(b, quantize=ops.Quantize("row"), output=ops.Output("float32", multiplier=1.0))
    packed = product.pack(isa)
    a = np.zeros((2 * depth, depth), np.float32)
    for k in range(depth):
        a[k, k], a[depth + k, k] = 3.0 + k, -3.0 - k
        a[k, (k + 1) % depth] -= 1
    product.check(packed, a)


@pytest.mark.parametrize("isa", isas())
def test_quantized_ties_and_ends(isa: str) -> None:
    """x / scale of n + 1/2 goes to the even neighbour before the zero point is added; beyond the ends it is clamped."""
    identity = np.eye(16, dtype=np.int8)
    product = Product(identity, quantize=ops.Quantize("static", 0.5, 3))
    packed = product.pack(isa)
    a = np.array(
        [0.25, 0.75, -0.25, -0.75, 1.25, -1.25, 63.25, 125.75, 126, 127, -2, 1e30, -1e30],
        np.float32,
    )
    a = np.concatenate([a, np.array([np.inf, -np.inf, np.nan], np.float32)])[None]
    found = packed(a) + 3
    assert found.tolist() == [[3, 5, 3, 1, 5, 1, 129, 255, 255, 255, 0, 255, 0, 255, 0, 0]]
    product.check(packed, a)


@pytest.mark.parametrize("isa", isas())
def test_a_row_of_nan_disturbs_no_other(rng, isa: str) -> None:
    b = full_range(rng, (DEPTH, COLUMNS), "int8")
    product = Product(b, quantize=ops.Quantize("row"), output=ops.Output("float32", 0.5))
    a = rng.normal(0, 1, (5, DEPTH)).astype(np.float32)
    wanted = product.expected(a)
    a[1, 3], a[3, 7] = np.nan, np.inf
    same(product.pack(isa)(a)[::2], wanted[::2])


@pytest.mark.parametrize("isa", isas())
def test_codes_of_quantized_rows(rng, isa: str) -> None:
    """A dynamic range and an 8-bit output, with zero points on the weight's side."""
    output = ops.Output("uint8", multiplier=0.05, zero_point=31, activation="leaky_relu")
    for how in ("tensor", "row"):
        product = Product(
            full_range(rng, (DEPTH, COLUMNS), "int8"),
            b_zero_point=-9,
            quantize=RANGES[how],
            output=output,
        )
        product.check(product.pack(isa), floats(rng, 15, DEPTH))


@pytest.mark.parametrize("isa", isas())
def test_groups_of_a_quantized_row_have_ranges_of_their_own(rng, isa: str) -> None:
    output = ops.Output("float32", multiplier=0.5)
    how = ops.Quantize("row")
    b, a = full_range(rng, (2 * DEPTH, COLUMNS), "int8"), floats(rng, 9, 2 * DEPTH)
    found = ops.pack_gemm(b, groups=2, quantize=how, output=output, target=isa)(a)
    halves = [
        Product(b[part], quantize=how, output=output).expected(a[:, part])
        for part in (slice(0, DEPTH), slice(DEPTH, None))
    ]
    same(found, np.hstack(halves))


@pytest.mark.parametrize("isa", isas())
def test_broadcast_rows_are_refused(rng, isa: str) -> None:
    packed = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), b_zero_point=ZERO).pack(isa)
    row = full_range(rng, (5, DEPTH), "uint8")
    flat = full_range(rng, (500,), "uint8")
    for view in (
        np.broadcast_to(row[:1], (5, DEPTH)),
        row[::-1],
        np.broadcast_to(row[:, :1], (5, DEPTH)),
        as_strided(flat, (20, DEPTH), (1, 2)),
    ):
        with pytest.raises(ops.OperandError, match=r"^a: expected adjacent elements in rows or"):
            packed(view)
