"""Products of `lowgemm.ops` beside the oracle: exact sums, then the output stage, compared bit by bit."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lowgemm import ops, reference
from lowgemm.quant import (
    choose_fixed_point,
    choose_qparams,
    from_bfloat16,
    min_max,
    quantize_linear,
    quantize_reciprocal,
    sum_factors,
)

from kernels import HARD_DATA, full_range

CODES = ("uint8", "int8")


@dataclass(frozen=True)
class Product:
    """The arguments of `ops.pack_gemm`, and what its calls must give."""

    b: np.ndarray
    a_dtype: str = "uint8"
    a_zero_point: Any = 0
    b_zero_point: Any = 0
    groups: int = 1
    transposed: bool = False
    quantize: ops.Quantize | None = None
    output: ops.Output = field(default_factory=ops.Output)

    def pack(self, level: str) -> ops.PackedGemm:
        """The packed product, for a level."""
        return ops.pack_gemm(
            self.b,
            a_dtype=self.a_dtype,
            a_zero_point=self.a_zero_point,
            b_zero_point=self.b_zero_point,
            groups=self.groups,
            transposed=self.transposed,
            quantize=self.quantize,
            output=self.output,
            target=level,
        )

    def expected(
        self,
        a: np.ndarray,
        row_scale: np.ndarray | None = None,
        row_zero_point: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> np.ndarray:
        """What the oracle gives; bfloat16 as its bits."""
        zero: Any = self.a_zero_point if row_zero_point is None else row_zero_point
        if self.quantize is not None:
            if self.quantize.range == "row" and self.groups > 1:
                raise NotImplementedError("each group has a range of its own")
            a, zero, found = quantized(a, self.quantize)
            row_scale = row_scale if found is None else found
        if self.b.ndim == 2:
            return self._matrix(a, self.b, zero, row_scale, residual, self.b_zero_point)
        # Of the right matrices: one zero point, one for each of them, or one for each of all their columns.
        count = len(self.b)
        of_columns = np.asarray(self.b_zero_point)
        of_columns = of_columns.reshape(count if of_columns.size > 1 else 1, -1)
        zeros = np.broadcast_to(of_columns, (count, of_columns.shape[1]))
        zero = zero if np.ndim(zero) else [zero] * count
        extras = [[None] * count if x is None else x for x in (row_scale, residual)]
        each = zip(a, self.b, zero, *extras, zeros, strict=True)
        return np.stack([self._matrix(*values) for values in each])

    def _matrix(self, a, b, zero, row_scale, residual, b_zero_point) -> np.ndarray:
        columns = b.shape[0] if self.transposed else b.shape[1] * self.groups
        if a.size == 0:
            kind = "uint16" if self.output.dtype == "bfloat16" else self.output.dtype
            return np.empty((*a.shape[:-1], columns), kind)
        form = {"groups": self.groups, "rhs_transposed": self.transposed}
        offsets = {"groups": self.groups, "transposed": self.transposed}
        return reference.output_stage(
            reference.gemm_i32(a, b, **form),
            lhs_zero_point=zero,
            rhs_zero_point=b_zero_point,
            row_sums=reference.row_sums(a, self.groups),
            column_offsets=reference.column_offsets(b, b_zero_point, **offsets),
            row_scale=row_scale,
            groups=self.groups,
            **stage(self.output, columns),
            residual=None if residual is None else added(self.output, residual),
        )

    def check(self, packed: ops.PackedGemm, a: np.ndarray, **extras: Any) -> None:
        """A call gives what the oracle does, bit for bit."""
        same(packed(a, **extras), self.expected(a, **extras))


def quantized(a: np.ndarray, how: ops.Quantize) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """uint8 codes of float32 `(..., rows, depth)`, their zero points, and, where found, the scales of rows."""
    if how.range == "static":
        return quantize_reciprocal(a, how.scale, how.zero_point), how.zero_point, None
    rows = a.reshape(-1, a.shape[-1])
    if how.range == "tensor":
        params = [choose_qparams(*min_max(a))] * len(rows)
    else:
        params = [choose_qparams(*min_max(row)) for row in rows]
    codes = [
        quantize_reciprocal(row, p.scale, p.zero_point) for row, p in zip(rows, params, strict=True)
    ]
    lead = a.shape[:-1]
    zeros = np.array([p.zero_point for p in params], np.int32).reshape(lead)
    scales = np.array([p.scale for p in params], np.float32).reshape(lead)
    return np.array(codes, np.uint8).reshape(a.shape), zeros, scales


def stage(output: ops.Output, columns: int) -> dict[str, Any]:
    """The arguments of `reference.output_stage` that an output stage says, but for the residual."""
    found: dict[str, Any] = {"dtype": output.dtype, "bias": output.bias}
    if output.dtype == "int32":
        return found
    found["table"] = output.table
    activation = output.activation
    if output.dtype in CODES:
        found["zero_point"] = output.zero_point
        if output.residual and activation != "leaky_relu":
            activation = None  # it is the sum's
        if activation == "relu6":
            found["out_scale"] = output.scale
        if output.bias is not None and output.bias.dtype == np.float32:
            found["bias_scale"] = output.bias_scale
    found["activation"] = activation
    if activation == "leaky_relu":
        found["alpha"] = output.slope
    if output.rounding == "fixed_point":
        each = np.asarray(output.multiplier, np.float32).reshape(-1)
        each = np.repeat(each, columns // each.size)
        found["fixed"] = [choose_fixed_point(float(m)) for m in each]
    else:
        found["multiplier"] = output.multiplier
    return found


def added(output: ops.Output, value: np.ndarray) -> reference.Residual:
    """The residual as the oracle takes it."""
    what = output.residual
    assert what is not None
    if output.dtype not in CODES:
        real = value if what.dtype == "float32" else from_bfloat16(value.view(np.uint16))
        return reference.Residual(real)
    assert output.scale is not None
    own = (output.scale, output.zero_point)
    total = (what.sum_scale, what.sum_zero_point)
    low = high = None
    if output.activation in ("relu", "relu6"):
        low = what.sum_zero_point
    if output.activation == "relu6":
        high = int(quantize_linear(np.array(6), *total, output.dtype))
    factors = sum_factors(own, (what.scale, what.zero_point), total)
    return reference.Residual(value, factors, low, high)


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Both are equal in dtype, shape and bits."""
    if found.dtype.name == "bfloat16":
        found = found.view(np.uint16)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if found.dtype == np.float32:
        found, wanted = found.view(np.int32), wanted.view(np.int32)
    wrong = np.argwhere(found != wanted)
    assert not len(wrong), (
        f"{len(wrong)} of {found.size} differ, first at {tuple(wrong[0])}: "
        f"{found[tuple(wrong[0])]}, not {wanted[tuple(wrong[0])]}"
    )


def operands(
    rng: np.random.Generator,
    rows: int,
    depth: int,
    columns: int,
    a_dtype: str = "uint8",
    b_dtype: str = "int8",
    kind: str = "random",
) -> tuple[np.ndarray, np.ndarray]:
    """`(rows, depth)` and `(depth, columns)` of one of `kernels.HARD_DATA`."""
    a, turned = HARD_DATA[kind](rng, (rows, depth), a_dtype, (columns, depth))
    b = np.ascontiguousarray(turned.T)
    return a, b if b_dtype == "int8" else (b.astype(np.int16) + 128).astype(np.uint8)


def with_stride(array: np.ndarray, extra: int) -> np.ndarray:
    """The same elements with rows `extra` further apart; what lies between is not zero."""
    wide = np.full((*array.shape[:-1], array.shape[-1] + extra), 77).astype(array.dtype)
    wide[..., : array.shape[-1]] = array
    return wide[..., : array.shape[-1]]


def random_output(rng: np.random.Generator, form: ops.Output, columns: int, depth: int):
    """`form` with numbers: multipliers that reach both ends of a code's range and more, biases, a table.

    A form has markers where numbers are wanted: multiplier 1, a bias of its dtype of any length, any table.
    """
    spread = 74.0 * 74.0 * np.sqrt(depth)  # the standard deviation of a sum of full-range products
    changes: dict[str, Any] = {}
    if form.dtype != "int32":
        # Small for codes that fill the range, one in eight for codes that are all clamped.
        target = 60.0 if form.dtype in CODES else 1.0
        scale = target / spread * np.exp(rng.normal(0, 0.5, columns))
        changes["multiplier"] = np.minimum(scale, 0.99).astype(np.float32)
    if form.bias is not None:
        kind = form.bias.dtype
        real = rng.normal(0, spread / 2, columns)
        if kind == np.float32 and form.dtype in CODES:
            changes["bias_scale"] = scale = np.exp(rng.normal(-6, 1, columns)).astype(np.float32)
            real = real * scale
        elif kind == np.float32:
            real = rng.normal(0, 1, columns)
        changes["bias"] = real.astype(kind)
    if form.table is not None:
        changes["table"] = full_range(rng, (256,), form.dtype)
    return replace(form, **changes)
