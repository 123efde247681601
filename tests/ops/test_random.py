"""Products that nobody thought of equal the oracle, bit for bit.

Compiling takes longer than anything else, so kernels come from pools that a seed decides, and each serves many
examples: what a kernel is not compiled for (rows, data, strides, groups, zero points, multipliers) is drawn for each.
`pytest --hypothesis-profile=thorough` takes more kernels and 2000 examples a level.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowgemm import ops

from gemm_check import CODES, Product, with_stride
from isa import isas
from kernels import HARD_DATA, full_range

THOROUGH = settings.get_current_profile_name() == "thorough"
POOLS, KERNELS, EXAMPLES = (10, 7, 200) if THOROUGH else (1, 8, 150)


@dataclass(frozen=True)
class Kernel:
    """What a kernel is compiled for.

    `layout` is that of the left matrix and the output; `fields` are those of `ops.Output`.
    """

    depth: int
    columns: int
    a_dtype: str
    quantize: str | None
    weight_zero: bool
    row_zero: bool
    layout: str
    bias: str | None
    fields: dict[str, Any]


def choose(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def random_kernel(rng: np.random.Generator) -> Kernel:
    """Any kernel of few columns and little depth."""
    depth = choose(rng, 1, 2, 3, 4, 7, 8, 16, 31, 33, int(rng.integers(1, 130)))
    columns = choose(rng, 1, 5, 8, 16, 17, 32, 40, int(rng.integers(1, 100)))
    layout = choose(rng, "plain", "strided", "transposed", "transposed strided")
    quantize = choose(rng, None, None, None, "static", "tensor", "row")
    ranged = quantize in ("tensor", "row")
    dtype = choose(rng, "int32", *CODES, *CODES, "float32", "bfloat16")
    if ranged and dtype == "int32":
        dtype = "float32"
    fields: dict[str, Any] = {"dtype": dtype}
    bias = choose(rng, None, "int32")
    if dtype != "int32":
        codes = dtype in CODES
        fixed = codes and not ranged and choose(rng, False, False, True)
        fields["rounding"] = "fixed_point" if fixed else "rne"
        fields["row_scale"] = not fixed and not ranged and choose(rng, False, True)
        if not fixed and not (codes and (ranged or fields["row_scale"])):
            bias = choose(rng, None, "int32", "float32")
        fields["activation"] = choose(rng, None, "relu", "relu6", None if fixed else "leaky_relu")
        kinds = CODES if codes else ("float32", "bfloat16")
        fields["residual"] = choose(rng, None, ops.Residual(choose(rng, *kinds)))
        if codes and choose(rng, False, True):
            fields["table"] = full_range(rng, (256,), dtype)
    return Kernel(
        depth=depth + (layout != "plain" and depth == 1),
        columns=columns + (layout != "plain" and columns == 1),
        a_dtype="uint8" if quantize else choose(rng, "uint8", "int8"),
        quantize=quantize,
        weight_zero=choose(rng, False, True),
        row_zero=quantize is None and choose(rng, False, False, True),
        layout=layout,
        bias=bias,
        fields=fields,
    )


POOL = [
    [random_kernel(rng) for _ in range(KERNELS)]
    for rng in map(np.random.default_rng, range(2000, 2000 + POOLS))
]


def draw_output(data: st.DataObject, kernel: Kernel, rng, columns: int, groups: int) -> ops.Output:
    """The kernel's output stage, with any numbers."""
    fields = dict(kernel.fields)
    deviation = 74.0 * 74.0 * np.sqrt(kernel.depth)
    if kernel.quantize in ("tensor", "row"):
        deviation /= 64.0  # the scales of rows come on top
    if fields["dtype"] == "int32":
        if kernel.bias:
            fields["bias"] = rng.integers(-(2**31), 2**31, columns).astype(np.int32)
        return ops.Output(**fields)
    codes = fields["dtype"] in CODES
    count = data.draw(st.sampled_from([1, groups, columns]), label="multipliers")
    size = data.draw(st.sampled_from([0.5, 2**-8, 60 / deviation, 1 / deviation]), label="size")
    multiplier = size * np.exp(rng.normal(0, 0.3, count))
    if data.draw(st.booleans(), label="power of two"):  # ties
        multiplier = np.exp2(np.rint(np.log2(multiplier)))
    multiplier = np.minimum(multiplier, 0.999).astype(np.float32)
    fields["multiplier"] = multiplier if count > 1 else float(multiplier[0])
    if kernel.bias == "int32":
        fields["bias"] = np.rint(rng.normal(0, deviation, columns)).astype(np.int32)
    if kernel.bias == "float32":
        scale = np.exp(rng.normal(-3, 1, data.draw(st.sampled_from([1, groups, columns]))))
        if codes:
            fields["bias_scale"] = scale.astype(np.float32)
            scale = np.repeat(scale, columns // scale.size) * deviation
        else:
            scale = 3.0
        fields["bias"] = (rng.normal(0, 1, columns) * scale).astype(np.float32)
    if fields["activation"] == "leaky_relu":
        fields["slope"] = data.draw(st.sampled_from([0.01, 0.2, 1.0, 1.5, -0.25, 0.0]))
    if codes:
        any_code = {kind: np.iinfo(kind).min + rng.integers(0, 256, 3) for kind in CODES}
        ends = data.draw(st.sampled_from([0, 128, 255, None]), label="zero point")
        zero = (
            any_code[fields["dtype"]][0] if ends is None else np.iinfo(fields["dtype"]).min + ends
        )
        fields["zero_point"] = int(zero)
        if fields["activation"] == "relu6" or fields["residual"]:
            fields["scale"] = data.draw(st.sampled_from([0.02, 0.05, 0.125, 6 / 255]))
        if fields["residual"]:
            kind = fields["residual"].dtype
            fields["residual"] = ops.Residual(
                kind,
                data.draw(st.sampled_from([0.02, 0.05, 0.125])),
                int(any_code[kind][1]),
                data.draw(st.sampled_from([0.03, 0.0625, 0.25])),
                int(any_code[fields["dtype"]][2]),
            )
    return ops.Output(**fields)


def draw_operands(data: st.DataObject, kernel: Kernel, rng) -> tuple[Product, np.ndarray]:
    """A product for the kernel, and its left matrix or matrices, contiguous."""
    depth, columns, plain = kernel.depth, kernel.columns, kernel.layout == "plain"
    # One row or none is contiguous in any layout; matrices in a row are, groups are not.
    rows = data.draw(st.integers(0 if plain else 2, 45), label="rows")
    groups = (
        1 if plain or kernel.quantize == "row" else data.draw(st.integers(1, 3), label="groups")
    )
    lead: tuple[int, ...] = data.draw(
        st.sampled_from([(), (), (1,), (3,), (2, 2)]), label="leading axes"
    )
    batched = len(lead) == 1 and groups == 1 and data.draw(st.booleans(), label="batched")
    kind = data.draw(st.sampled_from(list(HARD_DATA)), label="data")
    shape = (*lead, rows, groups * depth)
    parts = next(iter(lead)) if batched else groups
    b_shape = (*lead, depth, columns) if batched else (groups * depth, columns)
    a, b = HARD_DATA[kind](rng, shape, kernel.a_dtype, b_shape)
    if kernel.quantize:
        a = rng.normal(0, 1, shape).astype(np.float32)
        a *= np.exp(rng.normal(0, 2, (*shape[:-1], 1))).astype(np.float32)
        a[rng.random(shape) < 0.1] = 0
    b_dtype = data.draw(st.sampled_from(["int8", "uint8"]), label="b")
    middle = 0
    if b_dtype == "uint8":
        b, middle = (b.astype(np.int16) + 128).astype(np.uint8), 128
    count = data.draw(st.sampled_from([1, parts, parts * columns]))
    zeros = np.full(count, middle)
    if kernel.weight_zero:
        zeros = np.iinfo(b_dtype).min + rng.integers(0, 256, count)
        zeros[0] = middle - data.draw(st.integers(1, 128), label="b zero point")
    a_zero: Any = "row" if kernel.row_zero else 0
    if not kernel.row_zero and not kernel.quantize:
        low = np.iinfo(kernel.a_dtype).min
        a_zero = low + data.draw(st.sampled_from([0, 255, 128, 43]), label="a zero point")
    quantize = None
    if kernel.quantize:
        quantize = ops.Quantize("static", 0.03, data.draw(st.sampled_from([0, 100, 255])))
        quantize = quantize if kernel.quantize == "static" else ops.Quantize(kernel.quantize)  # type: ignore[arg-type]
    output = draw_output(data, kernel, rng, columns * groups, groups)
    product = Product(b, kernel.a_dtype, a_zero, zeros, groups, quantize=quantize, output=output)
    if data.draw(st.booleans(), label="b transposed"):
        turned = b.swapaxes(-1, -2)
        if groups > 1:
            turned = np.concatenate(np.split(b, groups)).reshape(groups, depth, columns)
            turned = turned.swapaxes(1, 2).reshape(groups * columns, depth)
        product = replace(product, b=turned, transposed=True)
    return product, a


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("pool", range(POOLS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_product(isa: str, pool: int, data: st.DataObject) -> None:
    kernel = POOL[pool][data.draw(st.integers(0, KERNELS - 1), label="kernel")]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    product, a = draw_operands(data, kernel, rng)
    columns = kernel.columns * product.groups
    shape = (*a.shape[:-1], columns)
    given: dict[str, np.ndarray] = {}
    if kernel.row_zero:
        low = np.iinfo(kernel.a_dtype).min
        given["row_zero_point"] = rng.integers(low, low + 256, shape[:-1]).astype(np.int32)
    if product.output.row_scale:
        given["row_scale"] = np.exp(rng.normal(0, 1, shape[:-1])).astype(np.float32)
    if product.output.residual:
        residual = product.output.residual.dtype
        if residual in CODES:
            given["residual"] = full_range(rng, shape, residual)
        else:
            given["residual"] = rng.normal(0, 4, shape).astype(np.float32)
        if residual == "bfloat16":
            given["residual"] = (given["residual"].view(np.uint32) >> 16).astype(np.uint16)
    wanted = product.expected(a, **given)

    transposed, strided = "transposed" in kernel.layout, "strided" in kernel.layout
    extra = data.draw(st.integers(1, 20), label="apart") if strided or transposed else 0
    if transposed:
        a = with_stride(np.ascontiguousarray(a.swapaxes(-1, -2)), extra - 1).swapaxes(-1, -2)
    elif strided:
        a = with_stride(a, extra)
    out = np.zeros(shape, wanted.dtype)
    if strided:
        out = with_stride(out, data.draw(st.integers(0 if not transposed else 1, 20)))
        if "residual" in given:
            given["residual"] = with_stride(given["residual"], data.draw(st.integers(0, 9)))
    packed = product.pack(isa)
    if product.output.dtype == "bfloat16":
        import ml_dtypes

        packed(a, out.view(ml_dtypes.bfloat16), **given)
    else:
        packed(a, out, **given)
    assert (out == wanted).all()
