"""FBGEMM's tests of its packed integer product (test/PackedRequantizeTest.cc), against the oracle with ==.

Its shapes, layouts, granularities, groups and numbers, from `fbgemm_shapes.json`. Its data is drawn such that no pair
of products saturates 16 bits: here it is not, because nothing saturates. Where it halves the columns to get rows that
are further apart than they are long, here all three matrices lie in wider ones.
"""

import json
from itertools import product as combinations
from pathlib import Path

import numpy as np
import pytest

from lowgemm import ops, reference

from gemm_check import Product, quantized, same, stage, with_stride
from isa import isas
from kernels import full_range

SHAPES = json.loads((Path(__file__).parent / "fbgemm_shapes.json").read_text())
T1 = SHAPES["conformance_tests"]["packed_requantize_acc32"]
A_ZERO_POINT, ZERO_POINT = 43, 5


def shapes() -> pytest.MarkDecorator:
    """All of FBGEMM's (rows, columns, depth); groups that divide a depth multiply the columns."""
    return pytest.mark.parametrize("shape", T1["shapes"], ids="{0[0]}x{0[1]}x{0[2]}".format)


def groups_of(depth: int) -> list[int]:
    return [groups for groups in T1["sweep"]["groups"] if depth % groups == 0]


def each_of(granularity: str, groups: int, columns: int) -> int:
    """How many zero points and multipliers there are."""
    return {"TENSOR": 1, "GROUP": groups, "OUT_CHANNEL": groups * columns}[granularity]


def layouts(a: np.ndarray, transposed: bool, spaced: bool) -> np.ndarray:
    """`(rows, depth)` as itself or as the transpose of what lies in memory, rows there longer than they need be."""
    stored = np.ascontiguousarray(a.T) if transposed else a
    stored = with_stride(stored, 24) if spaced else stored
    return stored.T if transposed else stored


@pytest.mark.parametrize("isa", isas())
@shapes()
def test_requantized_products(isa: str, shape: list[int], conformance) -> None:
    """uint8 by int8 to uint8, with zero points on both sides."""
    rows, columns, depth = shape
    rng = np.random.default_rng(depth)
    cases = 0
    for groups in groups_of(depth):
        wide = groups * columns
        a = full_range(rng, (rows, depth), "uint8")
        b = full_range(rng, (depth, columns), "int8")
        acc, sums = reference.gemm_i32(a, b, groups=groups), reference.row_sums(a, groups)
        turned = np.hstack(np.split(b, groups)).T
        bias = rng.integers(-128, 127, wide, np.int32)
        for granularity in T1["sweep"]["granularity"]:
            count = each_of(granularity, groups, columns)
            zeros = rng.integers(-50, -10, count, endpoint=True)
            multipliers = (0.001234 * rng.uniform(0.5, 1.5, count)).astype(np.float32)
            # Large sums are clamped by these multipliers, as in FBGEMM; with smaller ones none is.
            for biased, multiplier in (
                (False, multipliers),
                (True, multipliers),
                (True, multipliers / 16),
            ):
                output = ops.Output("uint8", multiplier, ZERO_POINT, bias=bias if biased else None)
                wanted = reference.output_stage(
                    acc,
                    lhs_zero_point=A_ZERO_POINT,
                    rhs_zero_point=zeros,
                    row_sums=sums,
                    column_offsets=reference.column_offsets(b, zeros, groups),
                    groups=groups,
                    **stage(output, wide),
                )
                for b_transposed, spaced in combinations(*[(False, True)] * 2):
                    packed = ops.pack_gemm(
                        layouts(turned if b_transposed else b, False, spaced),
                        a_zero_point=A_ZERO_POINT,
                        b_zero_point=zeros,
                        groups=groups,
                        transposed=b_transposed,
                        output=output,
                        target=isa,
                    )
                    for a_transposed in T1["sweep"]["trans_A"]:
                        out = with_stride(np.zeros((rows, wide), np.uint8), 24 * spaced)
                        packed(layouts(a, a_transposed, spaced), out)
                        same(out, wanted)
                        cases += 1
    conformance("gemm requantized", isa, cases)


@pytest.mark.parametrize("isa", isas())
@shapes()
def test_products_of_quantized_floats(isa: str, shape: list[int], conformance) -> None:
    """float32 quantized while it is packed, to float32: FBGEMM allows 1e-5 of the largest element, here it is exact."""
    rows, columns, depth = shape
    rng = np.random.default_rng(depth + 1)
    how = ops.Quantize("static", 0.11, A_ZERO_POINT)
    codes = full_range(rng, (rows, depth), "uint8")
    a = np.float32(0.11) * (codes.astype(np.float32) - np.float32(A_ZERO_POINT))
    assert (quantized(a, how)[0] == codes).all()
    for granularity in ("TENSOR", "OUT_CHANNEL"):
        count = each_of(granularity, 1, columns)
        scales = (0.49 * rng.uniform(0.5, 1.5, count)).astype(np.float32)
        product = Product(
            full_range(rng, (depth, columns), "int8"),
            b_zero_point=rng.integers(-50, -10, count, endpoint=True),
            quantize=how,
            output=ops.Output("float32", np.float32(0.11) * scales),
        )
        product.check(product.pack(isa), a)
        conformance("gemm float to float", isa)


@pytest.mark.parametrize("isa", isas())
@shapes()
def test_plain_products(isa: str, shape: list[int], conformance) -> None:
    """uint8 by int8 to int32, without zero points."""
    rows, columns, depth = shape
    rng = np.random.default_rng(depth + 2)
    b = full_range(rng, (depth, columns), "int8")
    for given, transposed in ((b, False), (b.T, True), (with_stride(b, 24), False)):
        product = Product(given, transposed=transposed)
        product.check(product.pack(isa), full_range(rng, (rows, depth), "uint8"))
        conformance("gemm to int32", isa)


@pytest.mark.parametrize("isa", isas())
def test_requantization_alone(isa: str, conformance) -> None:
    """FBGEMM's test/RequantizeOnlyTest.cc: few rows, every number of columns up to 32, with and without ReLU.

    A float bias gives the codes of the int32 bias that it is a multiple of.
    """
    rng = np.random.default_rng(8)
    cases = 0
    for rows, columns in combinations(range(1, 5), range(1, 33)):
        groups = 2 if columns % 2 == 0 else 1
        acc = rng.integers(-(2**20), 2**20, (rows, columns)).astype(np.int32)
        bias = rng.integers(-(2**16), 2**16, columns).astype(np.int32)
        for granularity, relu in combinations(T1["sweep"]["granularity"], (False, True)):
            count = each_of(granularity, groups, columns // groups)
            multiplier = (2.0**-13 * rng.uniform(0.5, 1.5, count)).astype(np.float32)
            wanted = reference.output_stage(
                acc,
                zero_point=ZERO_POINT,
                multiplier=multiplier,
                bias=bias,
                activation="relu" if relu else None,
                groups=groups,
            )
            given = {"axis": None if count == 1 else -1, "relu": relu, "target": isa}
            numbers = (float(multiplier[0]) if count == 1 else multiplier, ZERO_POINT, "uint8")
            same(ops.requantize(acc, *numbers, bias=bias, **given), wanted)
            real = {"bias": (bias * 0.125).astype(np.float32), "bias_scale": 0.125}
            same(ops.requantize(acc, *numbers, **real, **given), wanted)
            cases += 2
    conformance("requantize", isa, cases)
