"""FBGEMM's tests of products in 16-bit accumulators (test/PackedRequantizeAcc16Test.cc), against the oracle with ==.

Its shapes, groups, densities of outliers and numbers, from `fbgemm_shapes.json`. Whole weights and split ones, and
numbers of groups, take turns among the shapes, so that each shape compiles one kernel.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from lowgemm import ops, reference

from gemm_check import stage
from isa import isas
from kernels import full_range

SHAPES = json.loads((Path(__file__).parent / "fbgemm_shapes.json").read_text())
T2 = SHAPES["conformance_tests"]["packed_requantize_acc16"]
A_ZERO_POINT, ZERO_POINT = 43, 5
GRANULARITIES = ("TENSOR", "GROUP", "OUT_CHANNEL")


def cases() -> list[tuple[list[int], int, float | None]]:
    """(rows, columns, depth), groups, and the density of outliers, None where weights are not split.

    Every shape has one number of groups, by turns, of those that divide its depth, and every density its turns.
    """
    found = []
    for number, shape in enumerate(T2["shapes"]):
        fitting = [g for g in T2["sweep"]["groups"] if shape[2] % g == 0]
        density = (None, *T2["sweep"]["spmdm_density"])[number % 3]
        found.append((shape, fitting[number % len(fitting)], density))
    return found


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("shape", "groups", "density"),
    cases(),
    ids=[f"{m}x{n}x{k}-groups{g}-{d}" for (m, n, k), g, d in cases()],
)
def test_requantized_products(isa: str, shape, groups: int, density, conformance) -> None:
    rows, columns, depth = shape
    rng = np.random.default_rng(depth + columns)
    a = full_range(rng, (rows, depth), "uint8")
    if density is None:
        b = full_range(rng, (depth, columns), "int8")
        split = [(part, None) for part in np.split(b, groups)]
    else:
        b = rng.integers(-64, 64, (depth, columns)).astype(np.int8)
        b = np.where(rng.random(b.shape) < density, full_range(rng, b.shape, "int8"), b)
        split = [reference.split_outliers(part) for part in np.split(b, groups)]
    sums = []
    for part, (dense, sparse) in zip(np.split(a, groups, 1), split, strict=True):
        acc = reference.gemm_acc16(part, dense)
        sums.append(acc if sparse is None else reference.spmdm_i32(part, sparse, acc))
    wide = groups * columns
    packed = None
    for granularity in GRANULARITIES:
        count = {"TENSOR": 1, "GROUP": groups, "OUT_CHANNEL": wide}[granularity]
        zeros = rng.integers(-50, -10, count, endpoint=True)
        # A sixteenth of FBGEMM's: of its own, most codes of these data are clamped.
        multiplier = (0.001234 / 16 * rng.uniform(0.5, 1.5, count)).astype(np.float32)
        output = ops.Output("uint8", multiplier, ZERO_POINT)
        packed = ops.pack_gemm_acc16(
            b,
            a_zero_point=A_ZERO_POINT,
            b_zero_point=zeros,
            groups=groups,
            outliers=density is not None,
            output=output,
            target=isa,
        )
        wanted = reference.output_stage(
            np.hstack(sums),
            lhs_zero_point=A_ZERO_POINT,
            rhs_zero_point=zeros,
            row_sums=reference.row_sums(a, groups),
            column_offsets=reference.column_offsets(b, zeros, groups),
            groups=groups,
            **stage(output, wide),
        )
        np.testing.assert_array_equal(packed(a), wanted)
    conformance("gemm_acc16", isa, len(GRANULARITIES))
