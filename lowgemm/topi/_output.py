"""The output stage of integer products: from the 32-bit accumulator to the stored element, in any combination.

A product of codes accumulates raw: A[i, k] * W[k, j]. What zero points and an integer bias add is one integer a column,
and, where both depend on the row, a product of one of the row with one of the column:

    t = acc + offset[j] - row_sum[i] * weight_zero[j] - row_zero[i] * column_sum[j]           modulo 2^32

    int32       t
    uint8/int8  real = (float32(t) + bias[j]) * multiplier[j] * row_scale[i]     each rounded to float32
                real = real * slope where real < 0                               leaky ReLU
                code = clamp(rint(real) + zero_point, low, high)                 ties to even; ReLU, ReLU6 by the clamp
                or, by the policy "fixed_point", in 64 bits, ties up:
                code = clamp(((t * m[j] + 2^(s[j] - 1)) >> s[j]) + zero_point, low, high)
                code = the sum of code and a residual, as `_epilogue.add` has it
                code = the hard-swish of code, as `_epilogue.hard_swish_steps` has it
                code = table[code]
    float32     real = fma(float32(t) * multiplier[j], row_scale[i], bias[j])    the last product and the sum as one
                real = real + residual, then leaky ReLU, then min(max(real, low), high)
    bfloat16    the same, rounded to nearest, ties to even

The source of the integer rules is FBGEMM's requantization (`ReQuantizeOutput`, `RequantizeFixedPoint`); a bias of an
8-bit output comes divided by the scale of the accumulator, as there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from lowgemm.topi import _epilogue
from lowgemm.topi._arith import f32, fma, round_clamped, saturated, to_float, wrapping_sum

# (zero point, low, high, slope)
OUTPUT_PARAMS = 4


@dataclass(frozen=True)
class OutputForm:
    """What decides the code of an output stage; everything else is data.

    `dtype` is int32, uint8, int8, float32 or bfloat16 (held as uint16). `rounding` is "rne" or "fixed_point" (8-bit
    outputs). `residual` is the dtype of the added tensor, which is a sum of codes' first operand if `residual_first`.

    Two promises about data save instructions where codes are packed: without `zero` the output's zero point is 0, and
    without `bounds` its low and high are the ends of its type and no rounded number is beyond `_epilogue.FAR`. They
    count for nothing where a residual follows. Where a hard-swish does, its own codes have neither `zero`, which is in
    its factors, nor `bounds`, and `hard_swish` says which bounds of the code before it are kept: "low", "high", both or
    none. It gives the same for all that is beyond the others.
    """

    dtype: str = "int32"
    rounding: str = "rne"
    weight_zero: bool = False
    row_zero: bool = False
    bias: bool = False
    row_scale: bool = False
    leaky: bool = False
    clip: bool = False
    residual: str | None = None
    table: bool = False
    hard_swish: tuple[str, ...] | None = None
    residual_first: bool = False
    zero: bool = True
    bounds: bool = True

    @property
    def eight_bit(self) -> bool:
        """Whether the output is a code."""
        return self.dtype in ("uint8", "int8")

    @property
    def stored(self) -> str:
        """The element type of the output buffer."""
        return "uint16" if self.dtype == "bfloat16" else self.dtype


class OutputStage:
    """The arguments of an output stage as placeholders, and the element it stores.

    `columns` is the number of (padded) output columns, or their shape where they have several axes, `rows` the shape of
    what is held for each row, `shape` that of the output. `args` are in the order of the function's arguments:
        offset int32 (columns,);
        weight_zero int32 (columns,) if weight_zero; column_sum int32 (columns,) if row_zero;
        multiplier float32 (columns,), or fixed_multiplier and fixed_shift int32 (columns,), unless the output is int32;
        bias float32 (columns,) if bias; out float32 (4,) unless the output is int32;
        row_zero int32 `rows` if row_zero and not `found`; row_scale float32 `rows` if row_scale and not `found`;
        other, the residual, `shape`, and, if the output is 8-bit, add float32 (5,); swish float32 (5,) if hard_swish;
        table (256,) if table.
    `found` says that the row's scale and zero point are computed in the function itself. `packs` says that vectors
    become bytes by packing instructions, which saturate, and `begun` that accumulators begin with the offset. `declare`
    makes placeholders, or buffers for functions that are no tensor expressions: then accumulators and columns may be
    vectors, if codes are packed and nothing is added.
    """

    def __init__(
        self,
        form: OutputForm,
        columns,
        rows,
        shape,
        found: bool = False,
        packs: bool = False,
        begun: bool = False,
        declare: Callable[..., Any] = te.placeholder,
    ) -> None:
        columns = columns if isinstance(columns, tuple) else (columns,)
        self.form = form
        self._declare, self._begun = declare, begun
        self._packs = packs and form.eight_bit and form.rounding == "rne" and not form.table
        # Whether the codes' own bounds and zero point are those that packing has.
        self._ends = not (form.bounds or form.residual)
        assert form.hard_swish is None or self._ends, "a hard-swish is all that follows"
        self.args: list[te.Tensor] = []
        self._named: dict[str, Any] = {}
        real = form.dtype != "int32"
        fixed = form.rounding == "fixed_point"
        self._add("offset", columns, "int32")
        self._add("weight_zero", columns, "int32", form.weight_zero)
        self._add("column_sum", columns, "int32", form.row_zero)
        self._add("multiplier", columns, "float32", real and not fixed)
        self._add("fixed_multiplier", columns, "int32", fixed)
        self._add("fixed_shift", columns, "int32", fixed)
        self._add("bias", columns, "float32", form.bias)
        self._add("out", (OUTPUT_PARAMS,), "float32", real)
        self._add("row_zero", rows, "int32", form.row_zero and not found)
        self._add("row_scale", rows, "float32", form.row_scale and not found)
        self._add("other", shape, form.residual or "", form.residual is not None)
        sums = form.residual is not None and form.eight_bit
        self._add("add", (_epilogue.ADD_PARAMS,), "float32", sums)
        self._add("swish", (_epilogue.SWISH_PARAMS,), "float32", form.hard_swish is not None)
        self._add("table", (256,), form.dtype, form.table)

    def _add(self, name: str, shape, dtype: str, wanted: bool = True) -> None:
        if wanted:
            self._named[name] = self._declare(shape, dtype, name=name)
            self.args.append(self._named[name])

    def element(self, acc, column, row: tuple, at: tuple, row_sum: Any = None, found: Any = None):
        """What is stored at `at`, of the accumulator of `column` and `row`."""
        if self._packs and not self._ends:
            total, scale = self._total(acc, column, row, row_sum, found)
            return _epilogue.narrowed(*self._steps(total, column, scale, at), dtype=self.form.dtype)
        if self._packs:
            return saturated(
                self.unsaturated(acc, column, row, at, row_sum, found), self.form.dtype
            )
        value = self.value(acc, column, row, at, row_sum, found)
        return value.astype(self.form.dtype) if self.form.eight_bit else value

    def unsaturated(
        self, acc, column, row: tuple, at: tuple, row_sum: Any = None, found: Any = None
    ):
        """`value`, where a code may still be beyond its type: the nearest one is meant."""
        if not self._packs:
            return self.value(acc, column, row, at, row_sum, found)
        total, scale = self._total(acc, column, row, row_sum, found)
        real, zero, low, high = self._steps(total, column, scale, at)
        if self._ends:
            low = high = None
            zero = zero if self.form.zero else None
        return _epilogue.unsaturated(real, zero, low, high)

    def capped(self, acc, column):
        """`unsaturated` of an output stage that packs codes and has nothing of rows; `floor` is still to be the least
        code."""
        assert self._packs and not self.form.residual
        total, scale = self._total(acc, column, (), None, None)
        if self._ends:
            return self.unsaturated(acc, column, (), ())
        real, zero, _, high = self._steps(total, column, scale, ())
        return _epilogue.capped(real, zero, high, self.form.dtype)

    def offset(self, column):
        """What accumulators of `column` begin with, if that is not zero."""
        return self._named["offset"][column]

    @property
    def floor(self):
        """The least code, None if it is that of the type."""
        return None if self._ends else self._named["out"][1].astype(self.form.dtype)

    def value(self, acc, column, row: tuple, at: tuple, row_sum: Any = None, found: Any = None):
        """`element`, where a code is still an int32.

        `row_sum` is the tensor of sums of operands, if the form has weight_zero; `found` the tensors (zero points,
        scales) that the function computed, if it did.
        """
        form = self.form
        total, scale = self._total(acc, column, row, row_sum, found)
        if form.dtype == "int32":
            return total
        if not form.eight_bit:
            return self._float(total, column, scale, at)
        if form.rounding == "fixed_point":
            code = self._fixed(total, column, at)
        else:
            code = _epilogue.quantized_from(*self._steps(total, column, scale, at))
        if not form.table:
            return code
        return self._named["table"][code - (-128 if form.dtype == "int8" else 0)].astype("int32")

    def _total(self, acc, column, row: tuple, row_sum: Any, found: Any):
        """t, and the row's scale or None."""
        form, named = self.form, self._named
        # Only in 64 bits does LLVM see what overflows: elsewhere nothing is derived from sums that it believes not to.
        plus = wrapping_sum if form.rounding == "fixed_point" else _plus
        total = acc if self._begun else plus(acc, named["offset"][column])
        if form.weight_zero:
            total = plus(total, -row_sum(*row) * named["weight_zero"][column])
        zeros: Any
        scales: Any
        zeros, scales = found or (named.get("row_zero"), named.get("row_scale"))
        if form.row_zero:
            total = plus(total, -zeros(*row) * named["column_sum"][column])
        return total, scales(*row) if form.row_scale else None

    def _float(self, total, column, scale, at):
        form, named = self.form, self._named
        factors = [to_float(total), named["multiplier"][column]]
        if scale is not None:
            factors = [factors[0] * factors[1], scale]
        other = named["other"](*at) if form.residual else None
        if other is not None:
            other = from_bfloat16(other) if form.residual == "uint16" else to_float(other)
        if form.bias:
            real = fma(*factors, named["bias"][column])
            real = real if other is None else real + other
        elif other is not None:
            real = fma(*factors, other)
        else:
            real = factors[0] * factors[1]
        out = named["out"]
        if form.leaky:
            real = tirx.Select(real < f32(0.0), real * out[3], real)
        if form.clip:
            real = tirx.min(tirx.max(real, out[1]), out[2])
        return to_bfloat16(real) if form.dtype == "bfloat16" else real

    def _steps(self, total, column, scale, at):
        """(real, zero point, low, high) of what is still to be rounded, with what is fused behind it."""
        form, named = self.form, self._named
        out = named["out"]
        real = to_float(total)
        if form.bias:
            real = real + named["bias"][column]
        real = real * named["multiplier"][column]
        if scale is not None:
            real = real * scale
        if form.leaky:
            real = tirx.Select(real < f32(0.0), real * out[3], real)
        zero, low, high = (out[i] for i in range(3))
        if form.hard_swish is not None:
            if "low" in form.hard_swish:
                real = tirx.max(real, low - zero)
            if "high" in form.hard_swish:
                real = tirx.min(high - zero, real)
            return _epilogue.hard_swish_steps(real, named["swish"], form.dtype)
        if not form.residual:
            return real, zero, low, high
        code = round_clamped(real, low - zero, high - zero, zero)
        return _epilogue.sum_steps(*self._operands(code, at), named["add"])

    def _fixed(self, total, column, at):
        named, out = self._named, self._named["out"]
        wide, shift = (
            named[name][column].astype("int64") for name in ("fixed_multiplier", "fixed_shift")
        )
        one = tirx.const(1, "int64")
        product = total.astype("int64") * wide + (one << (shift - one))
        zero, low, high = (out[i].astype("int64") for i in range(3))
        code = tirx.min(tirx.max((product >> shift) + zero, low), high).astype("int32")
        return self._summed(code, at)

    def _summed(self, code, at):
        if not self.form.residual:
            return code
        return _epilogue.add(*self._operands(code, at), self._named["add"])

    def _operands(self, code, at):
        other = self._named["other"](*at)
        return (other, code) if self.form.residual_first else (code, other)


def _plus(a, b):
    return a + b


def to_bfloat16(real):
    """The 16 bits of `real` rounded to bfloat16, ties to even; a NaN stays one."""
    bits = tirx.reinterpret("uint32", real)
    one = tirx.const(1, "uint32")
    rounded = (bits + tirx.const(0x7FFF, "uint32") + ((bits >> 16) & one)) >> 16
    quiet = (bits >> 16) | tirx.const(0x40, "uint32")
    finite = (bits & tirx.const(0x7FFFFFFF, "uint32")) <= tirx.const(0x7F800000, "uint32")
    return tirx.Select(finite, rounded, quiet).astype("uint16")


def from_bfloat16(bits):
    """The float32 whose upper 16 bits are `bits`."""
    return tirx.reinterpret("float32", bits.astype("uint32") << 16)
