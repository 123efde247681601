"""What becomes of the 32-bit sums of a product: the public description, and the arrays that kernels take for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lowgemm.ops._arrays import (
    OperandError,
    array,
    instance,
    integer,
    numbers,
    one_of,
    one_scale,
    positive_scale,
)
from lowgemm.quant import choose_fixed_point, sum_factors

EIGHT_BIT = ("uint8", "int8")
FLOATS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Residual:
    """A tensor of the output's shape that is added to it; given with each call.

    For a float output only `dtype` (float32 or bfloat16) counts. For codes, the sum is ONNX Runtime's QLinearAdd
    (`quant.add_codes`) of the code that the product was requantized to and the residual's code. `scale` and
    `zero_point` are the residual's, `sum_scale` and `sum_zero_point` those of the result.
    """

    dtype: str = "uint8"
    scale: float = 1.0
    zero_point: int = 0
    sum_scale: float = 1.0
    sum_zero_point: int = 0


@dataclass(frozen=True, eq=False)
class Output:
    """The output stage of a product; all of it is fused into the product's kernel.

    Without arguments: the exact sums. Of a sum t, from which zero points have been taken off and to which an int32 bias
    was added, in 32 bits that wrap:

        codes       real = (float32(t) + bias / bias_scale) * multiplier * row_scale        each rounded to float32
                    real = real * slope where real < 0                                      leaky_relu
                    code = clamp(rint(real) + zero_point)                                   ties to even
                    or code = clamp((t * m + 2^(s - 1) >> s) + zero_point)                  "fixed_point", ties up
                    code = table[code of the sum of code and residual]
        floats      real = fma(float32(t) * multiplier, row_scale, bias) + residual         then the activation

    relu and relu6 are the ends of the clamp. Codes are those of FBGEMM's `ReQuantizeOutput`, and of its
    `RequantizeFixedPoint` with m and s of `quant.choose_fixed_point`; `reference.output_stage` has all of it bit for
    bit.

    Args:
        dtype: int32, uint8, int8, float32 or bfloat16.
        multiplier: float32; a scalar, one for each group, or one for each output channel. For codes lhs scale * rhs
            scale / output scale, for floats lhs scale * rhs scale. Above zero.
        zero_point: that of uint8 or int8 output; added after rounding.
        bias: int32 (added to the sums) or float32 (in real units), one for each output channel.
        bias_scale: for a float32 bias and an 8-bit output: lhs scale * rhs scale, scalar or for each channel. The sum
            gets bias / bias_scale, as in FBGEMM.
        row_scale: that each call gives one float32 scale a row (token), with which the real value is multiplied.
        activation: relu, relu6 or leaky_relu (of `slope`). With a residual, relu and relu6 act on the sum; leaky_relu
            does for floats.
        scale: the real value of a step of the output's codes, which relu6 and a residual need for codes.
        residual: what is added.
        table: 256 entries of the output's dtype; entry `code` (uint8) or `code + 128` (int8) replaces the code.
        rounding: "rne", to nearest, ties to even, of a float32 product; or "fixed_point", a 31-bit integer multiplier
            in (0, 1), ties up (FBGEMM's and gemmlowp's rule).
    """

    dtype: str = "int32"
    multiplier: Any = None
    zero_point: int = 0
    bias: np.ndarray | None = None
    bias_scale: Any = None
    row_scale: bool = False
    activation: Literal["relu", "relu6", "leaky_relu"] | None = None
    slope: float = 0.01
    scale: float | None = None
    residual: Residual | None = None
    table: np.ndarray | None = None
    rounding: Literal["rne", "fixed_point"] = "rne"

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            OperandError: naming the field.
        """
        kinds = ("int32", *EIGHT_BIT, *FLOATS)
        one_of("dtype", self.dtype, kinds)
        one_of("rounding", self.rounding, ("rne", "fixed_point"))
        one_of("activation", self.activation, (None, "relu", "relu6", "leaky_relu"))
        for name in ("bias", "table"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, array(getattr(self, name), name))
        codes = self.dtype in EIGHT_BIT
        if not codes and self.zero_point != 0:
            raise OperandError(f"zero_point: {self.dtype} output takes none")
        instance("residual", self.residual, Residual)
        if np.ndim(self.slope) or not np.isfinite(numbers(self.slope, "slope")):
            raise OperandError(f"slope: expected a finite number, got {self.slope}")
        if self.dtype == "int32":
            for name in ("multiplier", "activation", "residual", "table"):
                if getattr(self, name) is not None:
                    raise OperandError(f"{name}: int32 output takes none")
            if self.rounding != "rne":
                raise OperandError("rounding: int32 output takes none")
            if self.row_scale or (self.bias is not None and self.bias.dtype != np.int32):
                raise OperandError("bias, row_scale: int32 output takes an int32 bias and no scale")
            return
        if self.multiplier is None:
            raise OperandError(f"multiplier: {self.dtype} output needs one")
        positive_scale(self.multiplier, "multiplier")
        if self.bias is not None and self.bias.dtype not in (np.int32, np.float32):
            raise OperandError(f"bias: expected int32 or float32, got {self.bias.dtype.name}")
        if codes:
            self._check_codes()
        elif self.rounding != "rne" or self.table is not None:
            raise OperandError("rounding, table: only for uint8 or int8 output")
        elif self.residual and self.residual.dtype not in FLOATS:
            raise OperandError(
                f"residual: expected float32 or bfloat16 for float output, got {self.residual.dtype}"
            )

    def _check_codes(self) -> None:
        limits = np.iinfo(self.dtype)
        integer(self.zero_point, "zero_point", int(limits.min), int(limits.max))
        if self.bias is not None and self.bias.dtype == np.float32:
            if self.bias_scale is None:
                raise OperandError("bias_scale: a float32 bias and 8-bit output need it")
            if not np.isfinite(self.bias).all():
                raise OperandError("bias: expected finite numbers for 8-bit output")
        if self.bias_scale is not None:
            positive_scale(self.bias_scale, "bias_scale")
        if self.bias is not None and self.bias.dtype == np.float32 and self.row_scale:
            raise OperandError("bias: expected int32 where rows have scales of their own")
        if self.scale is None and (self.activation == "relu6" or self.residual):
            raise OperandError("scale: relu6 and a residual need the output's scale")
        if self.scale is not None:
            one_scale(self.scale, "scale")
        if self.residual:
            self._check_residual(self.residual)
        if self.table is not None and (
            self.table.dtype.name != self.dtype or self.table.shape != (256,)
        ):
            raise OperandError(f"table: expected {self.dtype} of shape (256,)")
        if self.rounding == "fixed_point":
            if self.row_scale or self.activation == "leaky_relu":
                raise OperandError("rounding: fixed_point takes no row_scale and no leaky_relu")
            if self.bias is not None and self.bias.dtype != np.int32:
                raise OperandError("bias: fixed_point takes int32")
            if not (np.asarray(self.multiplier) < 1).all():
                raise OperandError("multiplier: fixed_point takes multipliers below 1")
            least = float(np.min(np.asarray(self.multiplier, np.float32)))
            try:
                choose_fixed_point(least)
            except ValueError as error:
                raise OperandError(f"multiplier: {error}") from None

    def _check_residual(self, residual: Residual) -> None:
        one_of("residual", residual.dtype, EIGHT_BIT)
        one_scale(residual.scale, "residual.scale")
        one_scale(residual.sum_scale, "residual.sum_scale")
        for name, dtype in (("zero_point", residual.dtype), ("sum_zero_point", self.dtype)):
            limits = np.iinfo(dtype)
            value = getattr(residual, name)
            integer(value, f"residual.{name}", int(limits.min), int(limits.max))

    def form(self, weight_zero: bool, row_zero: bool) -> dict[str, Any]:
        """The fields of `topi.OutputForm`: what decides the code.

        Args:
            weight_zero: whether any zero point of the weight is not 0.
            row_zero: whether rows of the left matrix have zero points of their own.

        Raises:
            Nothing: fields were checked when the stage was made.
        """
        residual = None
        if self.residual:
            residual = "uint16" if self.residual.dtype == "bfloat16" else self.residual.dtype
        return {
            "dtype": self.dtype,
            "rounding": self.rounding,
            "weight_zero": weight_zero,
            "row_zero": row_zero,
            "bias": self.bias is not None and self.bias.dtype == np.float32,
            "row_scale": self.row_scale,
            "leaky": self.activation == "leaky_relu",
            "clip": self.dtype in FLOATS and self.activation in ("relu", "relu6"),
            "residual": residual,
            "table": self.table is not None,
        }

    def columns(self, channels: int, groups: int) -> dict[str, np.ndarray]:
        """What is held for each output channel, besides integers that depend on the weight.

        Args:
            channels: of all groups.
            groups: of channels; multipliers may be one for each.

        Raises:
            OperandError: there are neither one, `groups` nor `channels` of them, or one has no fixed-point form.
        """
        found: dict[str, np.ndarray] = {}
        if self.dtype == "int32":
            return found
        multiplier = spread(
            positive_scale(self.multiplier, "multiplier"), "multiplier", channels, groups
        )
        if self.rounding == "fixed_point":
            fixed = [choose_fixed_point(float(m)) for m in multiplier]
            found["fixed_multiplier"] = np.array([f.multiplier for f in fixed], np.int32)
            found["fixed_shift"] = np.array([f.shift for f in fixed], np.int32)
        else:
            found["multiplier"] = multiplier
        if self.bias is not None and self.bias.dtype == np.float32:
            bias = spread(self.bias, "bias", channels, 0)
            if self.dtype in EIGHT_BIT:
                scale = positive_scale(self.bias_scale, "bias_scale")
                bias = bias / spread(scale, "bias_scale", channels, groups)
            found["bias"] = bias.astype(np.float32)
        return found

    def integer_bias(self, channels: int) -> np.ndarray:
        """The int32 bias as int64 `(channels,)`, zeros if there is none.

        Args:
            channels: of all groups.

        Raises:
            OperandError: the bias is of another length.
        """
        if self.bias is None or self.bias.dtype != np.int32:
            return np.zeros(channels, np.int64)
        return spread(self.bias, "bias", channels, 0).astype(np.int64)

    def params(self) -> np.ndarray:
        """`out` of the output stage: zero point, low, high, slope."""
        if self.dtype not in EIGHT_BIT:
            high = 6.0 if self.activation == "relu6" else np.inf
            return np.array([0, 0, high, self.slope], np.float32)
        low, high = (
            self._code_range(self.dtype, None, 0)
            if self.residual
            else self._code_range(self.dtype, self.scale, self.zero_point)
        )
        return np.array([self.zero_point, low, high, self.slope], np.float32)

    def sum_params(self) -> np.ndarray:
        """`add` of the output stage: the factors of `quant.sum_factors`, low and high."""
        r = self.residual
        assert r and self.scale is not None
        factors = sum_factors(
            (self.scale, self.zero_point), (r.scale, r.zero_point), (r.sum_scale, r.sum_zero_point)
        )
        low, high = self._code_range(self.dtype, r.sum_scale, r.sum_zero_point)
        return np.array([*factors, low, high], np.float32)

    def _code_range(self, dtype: str, scale: float | None, zero_point: int) -> tuple[int, int]:
        """The codes that a ReLU or ReLU6 leaves, of real numbers `scale * (code - zero_point)`."""
        limits = np.iinfo(dtype)
        low, high = limits.min, limits.max
        if scale is not None or self.residual is None:
            if self.activation in ("relu", "relu6"):
                low = max(low, zero_point)
            if self.activation == "relu6":
                assert scale
                with np.errstate(over="ignore"):
                    six = np.rint(np.float32(6) / np.float32(scale))
                high = int(min(high, six + zero_point))
        return low, high


def spread(values: np.ndarray, name: str, channels: int, groups: int) -> np.ndarray:
    """`values`, a scalar, one for each group or one for each channel, as one for each channel.

    Raises:
        OperandError: there are as many as none of these.
    """
    flat = np.asarray(values).reshape(-1)
    if flat.size == channels:
        return np.ascontiguousarray(flat)
    if flat.size == 1 and groups:
        return np.repeat(flat, channels)
    if groups > 1 and flat.size == groups:
        return np.repeat(flat, channels // groups)
    wanted = (
        f"{channels}"
        if not groups
        else f"1, {groups} or {channels}"
        if groups > 1
        else f"1 or {channels}"
    )
    raise OperandError(f"{name}: expected {wanted} values, got {flat.size}")


def store_type(dtype: str) -> np.dtype:
    """numpy's type of an output dtype; bfloat16 is that of ml_dtypes."""
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def stage_arguments(output: dict[str, Any], dynamic: bool = False) -> list[str]:
    """The arguments of `topi.OutputStage` of the form `output`, in its order; `dynamic`: rows' params are found."""
    real, fixed = output["dtype"] != "int32", output["rounding"] == "fixed_point"
    wanted = {
        "offset": True,
        "weight_zero": output["weight_zero"],
        "column_sum": output["row_zero"],
        "multiplier": real and not fixed,
        "fixed_multiplier": fixed,
        "fixed_shift": fixed,
        "bias": output["bias"],
        "out": real,
        "row_zero": output["row_zero"] and not dynamic,
        "row_scale": output["row_scale"] and not dynamic,
        "other": output["residual"] is not None,
        "add": output["residual"] is not None and output["dtype"] in EIGHT_BIT,
        "table": output["table"],
    }
    return [name for name, present in wanted.items() if present]
