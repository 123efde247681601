"""Output stages, alone and combined, give the oracle's bits."""

from dataclasses import replace

import numpy as np
import pytest

from lowgemm.ops import Output, Quantize, Residual

from gemm_check import CODES, Product, random_output, with_stride
from isa import isas
from kernels import full_range

DEPTH, COLUMNS = 37, 21
# Where a form has data, these stand for it until `random_output` gives numbers.
ONE, I32, F32 = 0.5, np.zeros(1, np.int32), np.zeros(1, np.float32)
TABLE = {kind: np.zeros(256, kind) for kind in CODES}
ROWS = (1, 5, 19)

# Each feature with every dtype that has it, and as many of them at once as go together.
FORMS = {
    "u8": Output("uint8", ONE, 121),
    "s8 relu": Output("int8", ONE, -7, bias=I32, activation="relu"),
    "u8 row-scaled relu": Output("uint8", ONE, 3, bias=I32, row_scale=True, activation="relu"),
    "s8 float-bias relu6": Output(
        "int8", 1, -50, bias=F32, bias_scale=1.0, scale=0.05, activation="relu6"
    ),
    "u8 leaky table": Output(
        "uint8", 1, 90, activation="leaky_relu", slope=0.2, table=TABLE["uint8"]
    ),
    "s8 row-scaled leaky": Output(
        "int8", 1, 4, row_scale=True, activation="leaky_relu", slope=-1.5
    ),
    "u8 residual": Output(
        "uint8",
        ONE,
        128,
        bias=F32,
        bias_scale=1.0,
        scale=0.02,
        residual=Residual("int8", 0.03, -3, 0.04, 77),
    ),
    "s8 everything": Output(
        "int8",
        ONE,
        -20,
        bias=I32,
        row_scale=True,
        activation="leaky_relu",
        slope=0.01,
        scale=0.02,
        residual=Residual("uint8", 0.01, 200, 0.05, 9),
        table=TABLE["int8"],
    ),
    "u8 fixed": Output("uint8", ONE, 121, bias=I32, rounding="fixed_point"),
    "s8 fixed everything": Output(
        "int8",
        ONE,
        5,
        activation="relu6",
        scale=0.05,
        residual=Residual("int8", 0.05, 1, 0.08, -100),
        table=TABLE["int8"],
        rounding="fixed_point",
    ),
    "f32": Output("float32", ONE),
    "f32 int-bias relu": Output("float32", ONE, bias=I32, activation="relu"),
    "f32 everything": Output(
        "float32",
        ONE,
        bias=F32,
        row_scale=True,
        activation="leaky_relu",
        slope=0.3,
        residual=Residual("float32"),
    ),
    "f32 residual relu6": Output("float32", ONE, activation="relu6", residual=Residual("bfloat16")),
    "bf16": Output("bfloat16", ONE, bias=F32, activation="leaky_relu"),
    "bf16 everything": Output(
        "bfloat16", 1, bias=F32, row_scale=True, activation="relu6", residual=Residual("bfloat16")
    ),
    "bf16 residual": Output("bfloat16", ONE, row_scale=True, residual=Residual("float32")),
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def extras(
    rng: np.random.Generator, output: Output, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """What each call of an output stage gives, `shape` that of the output."""
    found: dict[str, np.ndarray] = {}
    if output.row_scale:
        found["row_scale"] = np.exp(rng.normal(0, 1, shape[:-1])).astype(np.float32)
    if output.residual is not None:
        kind = output.residual.dtype
        if kind in CODES:
            found["residual"] = full_range(rng, shape, kind)
        else:
            values = rng.normal(0, 4, shape).astype(np.float32)
            found["residual"] = (
                values if kind == "float32" else (values.view(np.uint32) >> 16).astype(np.uint16)
            )
    return found


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("form", FORMS)
def test_every_stage(rng, isa: str, form: str) -> None:
    output = random_output(rng, FORMS[form], COLUMNS, DEPTH)
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), "uint8", 130, 3, output=output)
    packed = product.pack(isa)
    for rows in ROWS:
        a = full_range(rng, (rows, DEPTH), "uint8")
        product.check(packed, a, **extras(rng, output, (rows, COLUMNS)))
    shape = (2, 3, COLUMNS)
    product.check(packed, full_range(rng, (2, 3, DEPTH), "uint8"), **extras(rng, output, shape))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("a_dtype", CODES)
def test_every_dtype_gives_every_other(rng, isa: str, a_dtype: str) -> None:
    low = np.iinfo(a_dtype).min
    a = full_range(rng, (5, DEPTH), a_dtype)
    for dtype in ("int32", *CODES, "float32", "bfloat16"):
        for b_dtype in CODES:
            form = Output(dtype, None if dtype == "int32" else ONE, bias=I32)
            output = random_output(rng, form, COLUMNS, DEPTH)
            b = full_range(rng, (DEPTH, COLUMNS), b_dtype)
            product = Product(b, a_dtype, low + 131, np.iinfo(b_dtype).min + 125, output=output)
            product.check(product.pack(isa), a)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("form", ["s8 everything", "bf16 everything"])
def test_strided_outputs_and_residuals(rng, isa: str, form: str) -> None:
    output = random_output(rng, FORMS[form], COLUMNS, DEPTH)
    product = Product(full_range(rng, (DEPTH, COLUMNS), "int8"), "uint8", 130, 3, output=output)
    packed = product.pack(isa)
    for rows in ROWS:
        a = full_range(rng, (rows, DEPTH), "uint8")
        given = extras(rng, output, (rows, COLUMNS))
        wanted = product.expected(a, **given)
        wide = with_stride(np.zeros(wanted.shape, wanted.dtype), 5)
        out = wide.view(packed(a, **given).dtype)
        given["residual"] = with_stride(given["residual"], 7)
        packed(a, out, **given)
        assert (wide == wanted).all()
        assert wide.base is not None
        assert (wide.base[:, COLUMNS:] == 77).all()


@pytest.mark.parametrize("isa", isas())
def test_groups_have_their_own_numbers(rng, isa: str) -> None:
    """Multipliers for the tensor, for groups and for columns; the right part of a residual for each group."""
    groups = 3
    columns = groups * COLUMNS
    output = random_output(rng, FORMS["u8 residual"], columns, DEPTH)
    b = full_range(rng, (groups * DEPTH, COLUMNS), "int8")
    a = full_range(rng, (19, groups * DEPTH), "uint8")
    residual = full_range(rng, (19, columns), "int8")
    every = np.asarray(output.multiplier)
    scales = np.asarray(output.bias_scale)
    for values in (every, every[:groups], every[:1], float(every[0])):
        for bias_scale in (scales, scales[:groups], 0.25):
            each = replace(output, multiplier=values, bias_scale=bias_scale)
            product = Product(b, "uint8", 130, [1, -2, 3], groups, output=each)
            product.check(product.pack(isa), a, residual=residual)


@pytest.mark.parametrize("isa", isas())
def test_batches_share_the_output_stage(rng, isa: str) -> None:
    output = random_output(rng, FORMS["s8 everything"], COLUMNS, DEPTH)
    product = Product(full_range(rng, (2, DEPTH, COLUMNS), "int8"), "uint8", 130, 3, output=output)
    shape = (2, 19, COLUMNS)
    given = extras(rng, output, shape)
    product.check(product.pack(isa), full_range(rng, (2, 19, DEPTH), "uint8"), **given)


def every_code(kind: str, zero: int) -> Product:
    """A product whose sums are what the bias says: the left matrix is zero."""
    bias = np.arange(-600, 600, dtype=np.int32)
    return Product(
        np.ones((1, bias.size), np.int8), output=Output(kind, 0.5, zero_point=zero, bias=bias)
    )


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_ties_and_ends(isa: str, kind: str, activation: str | None) -> None:
    """n + 1/2 goes to the even neighbour, then the zero point is added; both ends, zero points at both ends."""
    low = np.iinfo(kind).min
    for zero in (low, low + 1, low + 128, low + 255):
        product = every_code(kind, zero)
        output = replace(product.output, activation=activation, scale=0.09)
        product = replace(product, output=output)
        found = product.pack(isa)(np.zeros((1, 1), np.uint8))[0].astype(int)
        wanted = np.rint(np.arange(-600, 600) / 2) + zero
        floor = zero if activation else low
        ceiling = min(low + 255, zero + 67) if activation == "relu6" else low + 255
        assert (found == np.clip(wanted, floor, ceiling)).all()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", CODES)
def test_a_leaky_relu_bends_at_zero(isa: str, kind: str) -> None:
    """The slope is for what is below 0 and nothing else; its products are rounded once more, ties to even."""
    for slope in (0.5, 0.0, -1.0, 3.0):
        product = every_code(kind, np.iinfo(kind).min + 100)
        output = replace(product.output, activation="leaky_relu", slope=slope)
        found = replace(product, output=output).pack(isa)(np.zeros((1, 1), np.uint8))[0]
        real = np.arange(-600, 600) / 2
        codes = np.rint(np.where(real < 0, real * slope, real)) + output.zero_point
        assert (found == np.clip(codes, np.iinfo(kind).min, np.iinfo(kind).max)).all()


@pytest.mark.parametrize("isa", isas())
def test_fixed_point_ties_go_up(isa: str) -> None:
    product = every_code("int8", 3)
    product = replace(product, output=replace(product.output, rounding="fixed_point"))
    found = product.pack(isa)(np.zeros((1, 1), np.uint8))[0].astype(int)
    wanted = np.floor(np.arange(-600, 600) / 2 + 0.5) + 3
    assert (found == np.clip(wanted, -128, 127)).all()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("rounding", ["rne", "fixed_point"])
def test_the_largest_and_the_least_sums(rng, isa: str, rounding) -> None:
    """Every magnitude of 32 bits with multipliers from next to 1 down to the least, so that products leave 32 bits."""
    ends = [0, 1, -1, 2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31), 2**31 - 129, 2**30]
    bias = np.array(ends, np.int64).astype(np.int32)
    least = 2.0**-31 if rounding == "fixed_point" else 1e-38
    multipliers = np.array([0.99999994, 0.5, 1e-3, 1e-7, least], np.float32)
    if rounding == "rne":
        multipliers = np.append(multipliers, np.float32(3e38))
    bias, multipliers = (x.ravel() for x in np.meshgrid(bias, multipliers))
    for kind in CODES:
        output = Output(kind, multipliers, 7, bias=bias, rounding=rounding)
        product = Product(np.ones((1, bias.size), np.int8), output=output)
        product.check(product.pack(isa), np.zeros((2, 1), np.uint8))


@pytest.mark.parametrize("isa", isas())
def test_bfloat16_ties(isa: str) -> None:
    """A float32 halfway between two bfloat16 goes to the even one; what is next to it, to the nearer."""
    bias = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x3F817FFF, 0xBF808000, 0x7F7FFFFF, 1], np.uint32
    )
    output = Output("bfloat16", 1.0, bias=bias.view(np.float32))
    product = Product(np.ones((1, bias.size), np.int8), output=output)
    packed = product.pack(isa)
    found = packed(np.zeros((1, 1), np.uint8)).view(np.uint16)[0]
    assert [hex(x) for x in found] == [
        "0x3f80",
        "0x3f82",
        "0x3f81",
        "0x3f81",
        "0xbf80",
        "0x7f80",
        "0x0",
    ]
    product.check(packed, np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize("isa", isas())
def test_a_float_output_rounds_product_and_bias_once(isa: str) -> None:
    """4097 * (1 + 2^-12) - 4098 is 2^-12; rounding the product first would leave 0."""
    output = Output("float32", 1 + 2.0**-12, bias=np.full(COLUMNS, -4098, np.float32))
    product = Product(np.ones((DEPTH, COLUMNS), np.int8), output=output)
    a = np.zeros((1, DEPTH), np.uint8)
    a[0, :16], a[0, 16] = 255, 17
    assert (product.pack(isa)(a) == 2.0**-12).all()


@pytest.mark.emulated
@pytest.mark.parametrize("isa", isas())
def test_static_quantization_and_codes(rng, isa: str) -> None:
    """From real numbers to codes in one kernel."""
    output = random_output(rng, FORMS["s8 relu"], COLUMNS, DEPTH)
    how = Quantize("static", 0.02, 128)
    product = Product(
        full_range(rng, (DEPTH, COLUMNS), "int8"), b_zero_point=3, quantize=how, output=output
    )
    product.check(product.pack(isa), rng.normal(0, 1, (19, DEPTH)).astype(np.float32))
