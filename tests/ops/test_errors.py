"""What cannot be computed right is refused in one line that names the argument and what was expected."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from lowgemm import ops
from lowgemm.errors import InputError, TargetError
from lowgemm.ops import Output, Quantize, Residual, pack_gemm

DEPTH, COLUMNS = 37, 21
B = np.ones((DEPTH, COLUMNS), np.int8)
A = np.ones((5, DEPTH), np.uint8)
I32, F32 = np.zeros(COLUMNS, np.int32), np.zeros(COLUMNS, np.float32)
NAN, INF = float("nan"), float("inf")
# Without types, to be called wrong.
QUANTIZE: Any = Quantize


@contextmanager
def refused(message: str) -> Iterator[None]:
    """An OperandError of exactly this text, where ... stands for anything."""
    with pytest.raises(ops.OperandError) as caught:
        yield
    text = str(caught.value)
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert re.fullmatch(pattern, text), text
    assert isinstance(caught.value, InputError)


def case(message: str, *values: Any, **options: Any):
    return pytest.param(message, values, options, id=message[:60])


@pytest.mark.parametrize(
    ("message", "values", "options"),
    [
        case("b: expected an array, got list", [[1, 2]]),
        case("b: expected int8 or uint8, got int32 of shape (37, 21)", B.astype(np.int32)),
        case("b: expected int8 or uint8, got float32 of shape (37, 21)", B.astype(np.float32)),
        case("b: expected 2 axes, or 3 for a batch, got shape (21,)", B[0]),
        case("b: expected 2 axes, or 3 for a batch, got shape (1, 1, 37, 21)", B[None, None]),
        case("b: expected at least one row and one column, got shape (0, 21)", B[:0]),
        case("b: expected at least one row and one column, got shape (37, 0)", B[:, :0]),
        case("b: expected at least one row and one column, got shape (0, 37, 21)", B[None][:0]),
        case("groups: expected an integer from 1, got 0", B, groups=0),
        case("groups: expected an integer from 1, got 1.0", B, groups=1.0),
        case("groups: 2 do not divide b of shape (37, 21)", B, groups=2),
        case("groups: 2 do not divide b of shape (21, 37)", B.T, groups=2, transposed=True),
        case("groups: a batch of right matrices takes none", B[None], groups=3),
        case("a_dtype: expected one of uint8, int8, got int16", B, a_dtype="int16"),
        case(
            "a_dtype: expected one of uint8, int8, got dtype('uint8')",
            B,
            a_dtype=B.view("u1").dtype,
        ),
        case("output: expected Output, got 'uint8'", B, output="uint8"),
        case("quantize: expected Quantize, got 'row'", B, quantize="row"),
        case("a_zero_point: expected an integer from 0 to 255, got 256", B, a_zero_point=256),
        case("a_zero_point: expected an integer from 0 to 255, got -1", B, a_zero_point=-1),
        case(
            "a_zero_point: expected an integer from -128 to 127, got 128",
            B,
            a_dtype="int8",
            a_zero_point=128,
        ),
        case("a_zero_point: expected an integer from 0 to 255, got 3.5", B, a_zero_point=3.5),
        case("a_zero_point: expected an integer from 0 to 255, got nan", B, a_zero_point=NAN),
        case("a_zero_point: expected an integer from 0 to 255, got 'rows'", B, a_zero_point="rows"),
        case("b_zero_point: expected integers, got float64", B, b_zero_point=0.5),
        case("b_zero_point: expected -128 to 127, got 128", B, b_zero_point=128),
        case("b_zero_point: expected 0 to 255, got [-1]", B.view(np.uint8), b_zero_point=[-1]),
        case("b_zero_point: expected 1, 1 or 21 values, got 2", B, b_zero_point=[1, 2]),
        case(
            "b_zero_point: expected 1, 3 or 21 values, got 0",
            np.ones((3, 7), np.int8),
            groups=3,
            b_zero_point=np.zeros(0, int),
        ),
        case(
            "b: depth 65794 is too large for exact 32-bit sums; at most 65793",
            np.ones((65794, 1), np.int8),
        ),
        case(
            "b: depth 131073 is too large for exact 32-bit sums; at most 131071",
            np.ones((131073, 1), np.int8),
            a_dtype="int8",
        ),
        case(
            "b: depth 65793 is too large for exact 32-bit sums; at most 33025",
            np.ones((65793, 1), np.int8),
            b_zero_point=127,
        ),
        case(
            "b: depth 65794 is too large for exact 32-bit sums; at most 65793",
            np.ones((65794, 1), np.int8),
            a_zero_point="row",
        ),
        case(
            "a_dtype, a_zero_point: with quantize they are uint8 and quantize's own",
            B,
            quantize=QUANTIZE(),
            a_dtype="int8",
        ),
        case(
            "a_dtype, a_zero_point: with quantize they are uint8 and quantize's own",
            B,
            quantize=QUANTIZE(),
            a_zero_point=3,
        ),
        case(
            "quantize.range: expected one of static, tensor, row, got column",
            B,
            quantize=QUANTIZE("column"),
        ),
        case(
            "quantize.scale: expected finite scales above zero, got 0.0",
            B,
            quantize=QUANTIZE(scale=0),
        ),
        case(
            "quantize.scale: expected finite scales above zero, got nan",
            B,
            quantize=QUANTIZE(scale=NAN),
        ),
        case(
            "quantize.scale: expected finite scales above zero, got inf",
            B,
            quantize=QUANTIZE(scale=INF),
        ),
        case(
            "quantize.scale: expected finite scales above zero, got -1.0",
            B,
            quantize=QUANTIZE(scale=-1),
        ),
        case(
            "quantize.scale: its reciprocal is not finite: 1...e-39",
            B,
            quantize=QUANTIZE(scale=1e-39),
        ),
        case(
            "quantize.scale: expected one scale, got shape (2,)",
            B,
            quantize=QUANTIZE(scale=[1.0, 2.0]),
        ),
        case(
            "quantize.zero_point: expected an integer from 0 to 255, got 256",
            B,
            quantize=QUANTIZE(zero_point=256),
        ),
        case(
            "quantize.zero_point: expected an integer from 0 to 255, got 1.5",
            B,
            quantize=QUANTIZE(zero_point=1.5),
        ),
        case(
            "quantize: a range found at run time needs a real output stage",
            B,
            quantize=QUANTIZE("row"),
        ),
        case(
            "quantize: a range found at run time needs a real output stage",
            B,
            quantize=QUANTIZE("tensor"),
            output=Output("uint8", 0.5, rounding="fixed_point"),
        ),
        case(
            "output.row_scale: a range found at run time is the row's scale",
            B,
            quantize=QUANTIZE("row"),
            output=Output("float32", 0.5, row_scale=True),
        ),
        case(
            "output.bias: expected int32 where rows have scales of their own",
            B,
            quantize=QUANTIZE("tensor"),
            output=Output("uint8", 0.5, bias=F32, bias_scale=1.0),
        ),
        case("multiplier: expected 1 or 21 values, got 2", B, output=Output("uint8", [0.5, 0.5])),
        case(
            "multiplier: expected 1, 3 or 21 values, got 7",
            np.ones((3, 7), np.int8),
            groups=3,
            output=Output("uint8", [0.5] * 7),
        ),
        case("bias: expected 21 values, got 1", B, output=Output(bias=I32[:1])),
        case(
            "bias_scale: expected 1 or 21 values, got 3",
            B,
            output=Output("uint8", 0.5, bias=F32, bias_scale=[1.0] * 3),
        ),
    ],
)
def test_packing(message: str, values: tuple, options: dict[str, Any]) -> None:
    with refused(message):
        pack_gemm(*values, **options)


def test_largest_depths_are_taken() -> None:
    pack_gemm(np.ones((65793, 1), np.int8))
    pack_gemm(np.ones((131071, 1), np.int8), a_dtype="int8")
    pack_gemm(np.ones((33025, 1), np.int8), b_zero_point=127)


@pytest.mark.parametrize(
    ("message", "values", "options"),
    [
        case(
            "dtype: expected one of int32, uint8, int8, float32, bfloat16, got float16",
            "float16",
            1,
        ),
        case("rounding: expected one of rne, fixed_point, got up", "uint8", 0.5, rounding="up"),
        case(
            "activation: expected one of None, relu, relu6, leaky_relu, got gelu",
            "uint8",
            0.5,
            activation="gelu",
        ),
        case("multiplier: int32 output takes none", "int32", 0.5),
        case("activation: int32 output takes none", "int32", activation="relu"),
        case("residual: int32 output takes none", "int32", residual=Residual()),
        case("table: int32 output takes none", "int32", table=np.zeros(256, np.int32)),
        case("zero_point: int32 output takes none", "int32", zero_point=3),
        case("zero_point: float32 output takes none", "float32", 0.5, zero_point=3),
        case("rounding: int32 output takes none", "int32", rounding="fixed_point"),
        case("bias, row_scale: int32 output takes an int32 bias and no scale", "int32", bias=F32),
        case(
            "bias, row_scale: int32 output takes an int32 bias and no scale",
            "int32",
            row_scale=True,
        ),
        case("multiplier: uint8 output needs one", "uint8"),
        case("multiplier: bfloat16 output needs one", "bfloat16"),
        case("multiplier: expected finite scales above zero, got nan", "uint8", [0.5, NAN]),
        case("multiplier: expected finite scales above zero, got 0.0", "float32", 0),
        case("multiplier: expected finite scales above zero, got inf", "float32", 1e300),
        case("multiplier: expected finite scales above zero, got 0.0", "int8", 1e-50),
        case("multiplier: expected at least one scale", "int8", []),
        case("multiplier: expected real numbers, got 'half'", "int8", "half"),
        case("multiplier: expected real numbers, got [[1], [1, 2]]", "int8", [[1], [1, 2]]),
        case("dtype: expected one of ..., got dtype('int8')", np.dtype("int8"), 0.5),
        case("residual: expected Residual, got 'uint8'", "uint8", 0.5, scale=1.0, residual="uint8"),
        case(
            "bias: expected finite numbers for 8-bit output",
            "uint8",
            0.5,
            bias=np.array([1, NAN], np.float32),
            bias_scale=0.5,
        ),
        case("slope: expected real numbers, got 'steep'", "float32", 0.5, slope="steep"),
        case(
            "multiplier: fixed_point takes multipliers below 1",
            "uint8",
            [0.5, 1.0],
            rounding="fixed_point",
        ),
        case(
            "multiplier: 9...e-13 is too small for a fixed-point multiplier",
            "uint8",
            [0.5, 0.99e-12],
            rounding="fixed_point",
        ),
        case(
            "rounding: fixed_point takes no row_scale and no leaky_relu",
            "uint8",
            0.5,
            rounding="fixed_point",
            row_scale=True,
        ),
        case(
            "rounding: fixed_point takes no row_scale and no leaky_relu",
            "uint8",
            0.5,
            rounding="fixed_point",
            activation="leaky_relu",
        ),
        case(
            "bias: fixed_point takes int32",
            "uint8",
            0.5,
            rounding="fixed_point",
            bias=F32,
            bias_scale=1.0,
        ),
        case(
            "rounding, table: only for uint8 or int8 output", "float32", 0.5, rounding="fixed_point"
        ),
        case(
            "rounding, table: only for uint8 or int8 output",
            "float32",
            0.5,
            table=np.zeros(256, np.uint8),
        ),
        case("zero_point: expected an integer from 0 to 255, got 256", "uint8", 0.5, 256),
        case("zero_point: expected an integer from -128 to 127, got 128", "int8", 0.5, 128),
        case("zero_point: expected an integer from 0 to 255, got 0.5", "uint8", 0.5, 0.5),
        case("bias: expected an array, got list", "uint8", 0.5, bias=[1, 2]),
        case("bias: expected int32 or float32, got int64", "uint8", 0.5, bias=I32.astype(np.int64)),
        case(
            "bias: expected int32 or float32, got float64",
            "float32",
            0.5,
            bias=F32.astype(np.float64),
        ),
        case("bias_scale: a float32 bias and 8-bit output need it", "uint8", 0.5, bias=F32),
        case(
            "bias: expected int32 where rows have scales of their own",
            "uint8",
            0.5,
            bias=F32,
            bias_scale=1.0,
            row_scale=True,
        ),
        case(
            "bias_scale: expected finite scales above zero, got 0.0",
            "uint8",
            0.5,
            bias=F32,
            bias_scale=0,
        ),
        case(
            "slope: expected a finite number, got nan",
            "float32",
            0.5,
            activation="leaky_relu",
            slope=NAN,
        ),
        case(
            "slope: expected a finite number, got inf",
            "uint8",
            0.5,
            activation="leaky_relu",
            slope=INF,
        ),
        case(
            "scale: relu6 and a residual need the output's scale", "uint8", 0.5, activation="relu6"
        ),
        case(
            "scale: relu6 and a residual need the output's scale",
            "int8",
            0.5,
            residual=Residual("int8"),
        ),
        case(
            "scale: expected finite scales above zero, got 0.0",
            "uint8",
            0.5,
            activation="relu6",
            scale=0,
        ),
        case(
            "scale: expected one scale, got shape (2,)",
            "uint8",
            0.5,
            activation="relu6",
            scale=[1.0, 1.0],
        ),
        case(
            "residual: expected one of uint8, int8, got float32",
            "uint8",
            0.5,
            scale=1,
            residual=Residual("float32"),
        ),
        case(
            "residual: expected float32 or bfloat16 for float output, got uint8",
            "float32",
            0.5,
            residual=Residual(),
        ),
        case(
            "residual.scale: expected finite scales above zero, got nan",
            "uint8",
            0.5,
            scale=1,
            residual=Residual(scale=NAN),
        ),
        case(
            "residual.sum_scale: expected finite scales above zero, got 0.0",
            "uint8",
            0.5,
            scale=1,
            residual=Residual(sum_scale=0),
        ),
        case(
            "residual.zero_point: expected an integer from -128 to 127, got 200",
            "uint8",
            0.5,
            scale=1,
            residual=Residual("int8", 1, 200),
        ),
        case(
            "residual.sum_zero_point: expected an integer from -128 to 127, got 200",
            "int8",
            0.5,
            scale=1,
            residual=Residual("uint8", 1, 0, 1, 200),
        ),
        case("table: expected uint8 of shape (256,)", "uint8", 0.5, table=np.zeros(256, np.int8)),
        case("table: expected int8 of shape (256,)", "int8", 0.5, table=np.zeros(255, np.int8)),
        case("table: expected an array, got list", "int8", 0.5, table=[0] * 256),
    ],
)
def test_output_stages(message: str, values: tuple, options: dict[str, Any]) -> None:
    with refused(message):
        Output(*values, **options)


class Refusing:
    """An array whose memory is elsewhere."""

    def __dlpack__(self, **options: Any):
        raise BufferError("on another device")

    def __dlpack_device__(self):
        return (2, 0)


WIDE = np.zeros((5, 2 * DEPTH), np.uint8)
UNALIGNED = np.zeros(4 * 5 * COLUMNS + 1, np.uint8)[1:].view(np.int32).reshape(5, COLUMNS)
ALL = np.zeros(4 * 5 * COLUMNS, np.uint8)
OVERLAPPING = ALL[: A.size].reshape(A.shape), ALL.view(np.int32).reshape(5, COLUMNS)
READ_ONLY = np.zeros((5, COLUMNS), np.int32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("message", "values", "options"),
    [
        case("a: expected an array, got list", [[1]]),
        case("a: its memory cannot be shared: on another device", Refusing()),
        case(
            "a: expected uint8 of shape (..., rows, 37), got int8 of shape (5, 37)",
            A.astype(np.int8),
        ),
        case("a: expected uint8 of shape (..., rows, 37), got uint8 of shape (5, 36)", A[:, :36]),
        case("a: expected uint8 of shape (..., rows, 37), got uint8 of shape (37,)", A[0]),
        case(
            "a: expected uint8 of shape (..., rows, 37), got uint8 of shape (2, 5, 36)",
            np.zeros((2, 5, 36), np.uint8),
        ),
        case("a: expected adjacent elements in rows or columns, got strides (74, 2)", WIDE[:, ::2]),
        case("a: expected adjacent elements in rows or columns, got strides (37, -1)", A[:, ::-1]),
        case("a: expected adjacent elements in rows or columns, got strides (-37, 1)", A[::-1]),
        case(
            "out: expected int32 of shape (5, 21), got float32 of shape (5, 21)",
            A,
            np.zeros((5, 21), np.float32),
        ),
        case(
            "out: expected int32 of shape (5, 21), got int32 of shape (4, 21)",
            A,
            np.zeros((4, 21), np.int32),
        ),
        case("out: expected an array, got list", A, [1]),
        case("out: expected memory apart from the inputs", *OVERLAPPING),
        case("out: expected memory aligned to its 4-byte elements", A, UNALIGNED),
        case("out: expected an array that can be written to", A, READ_ONLY),
        case("out: expected this machine's byte order, got >i4", A, np.zeros((5, 21), ">i4")),
        case(
            "out: expected adjacent elements in rows, and rows one after the other, got strides (168, 8)",
            A,
            np.zeros((5, 42), np.int32)[:, ::2],
        ),
        case(
            "out: expected adjacent elements in rows, and rows one after the other, got strides (-84, 4)",
            A,
            np.zeros((5, 21), np.int32)[::-1],
        ),
        case(
            "out: expected adjacent elements in rows, and rows one after the other, got strides (4, 4)",
            A,
            as_strided(np.zeros(30, np.int32), (5, 21), (4, 4)),
        ),
        case("row_scale: this product takes no row_scale", A, row_scale=F32[:5]),
        case("row_zero_point: this product takes no row_zero_point", A, row_zero_point=I32[:5]),
        case("residual: this product takes no residual", A, residual=F32[:5]),
    ],
)
def test_calls(message: str, values: tuple, options: dict[str, Any]) -> None:
    packed = pack_gemm(B)
    with refused(message):
        packed(*values, **options)
    if len(values) == 2:
        with refused(message):
            packed.bind(*values, **options)


def test_arrays_beyond_32_bits() -> None:
    """Of their memory one byte exists; the error comes before it is read."""
    packed = pack_gemm(B)
    byte = np.zeros(1, np.uint8)
    with refused("a: expected at most 2147483647 elements, got 4900000000"):
        packed(as_strided(byte, (70000, 70000), (0, 0)))
    with refused(
        "a: expected elements within 2147483647 of each other, got strides (1073741824, 1)"
    ):
        packed(as_strided(byte, (5, DEPTH), (2**30, 1)))


OUT = (5, COLUMNS)


@pytest.mark.parametrize(
    ("message", "values", "options"),
    [
        case(
            "row_scale: this product needs row_scale",
            row_zero_point=I32[:5],
            residual=np.zeros(OUT, np.float32),
        ),
        case(
            "row_zero_point: this product needs row_zero_point",
            row_scale=F32[:5],
            residual=np.zeros(OUT, np.float32),
        ),
        case("residual: this product needs residual", row_scale=F32[:5], row_zero_point=I32[:5]),
        case(
            "row_scale: expected float32 of shape (5), got float64 of shape (5,)",
            row_scale=np.ones(5),
        ),
        case(
            "row_scale: expected float32 of shape (5), got float32 of shape (4,)", row_scale=F32[:4]
        ),
        case("row_scale: expected this machine's byte order, got >f4", row_scale=np.ones(5, ">f4")),
        case(
            "row_zero_point: expected int32 of shape (5), got int64 of shape (5,)",
            row_zero_point=np.ones(5, np.int64),
        ),
        case(
            "row_zero_point: expected 0 to 255, got 0 to 256",
            row_zero_point=np.array([0, 3, 256, 9, 9], np.int32),
        ),
        case(
            "row_zero_point: expected 0 to 255, got -1 to 9",
            row_zero_point=np.array([0, 3, -1, 9, 9], np.int32),
        ),
        case(
            "row_scale: expected finite scales above zero, got nan",
            row_scale=np.array([1, 1, NAN, 1, 1], np.float32),
        ),
        case("row_scale: expected finite scales above zero, got 0.0", row_scale=F32[:5]),
        case("row_zero_point: expected an array, got int", row_zero_point=3),
        case(
            "residual: expected float32 of shape (5, 21), got float32 of shape (4, 21)",
            residual=np.zeros((4, 21), np.float32),
        ),
        case(
            "residual: expected float32 of shape (5, 21), got uint8 of shape (5, 21)",
            residual=np.zeros(OUT, np.uint8),
        ),
        case(
            "residual: expected adjacent elements in rows, got strides (4, 20)",
            residual=np.zeros((21, 5), np.float32).T,
        ),
        case(
            "residual: expected adjacent elements in rows, got strides (-84, 4)",
            residual=np.zeros(OUT, np.float32)[::-1],
        ),
    ],
)
def test_calls_with_rows_of_their_own(message: str, values: tuple, options: dict[str, Any]) -> None:
    output = Output("float32", 0.5, row_scale=True, residual=Residual("float32"))
    packed = pack_gemm(B, a_zero_point="row", output=output)
    right = {
        "row_scale": F32[:5] + 1,
        "row_zero_point": I32[:5],
        "residual": np.zeros(OUT, np.float32),
    }
    given = options if "needs" in message else {**right, **options}
    with refused(message):
        packed(A, *values, **given)


def test_bfloat16_residual() -> None:
    output = Output("bfloat16", 0.5, residual=Residual("bfloat16"))
    packed = pack_gemm(B, output=output)
    with refused(
        "residual: expected bfloat16 or uint16 of shape (5, 21), got float32 of shape (5, 21)"
    ):
        packed(A, residual=np.zeros(OUT, np.float32))
    with refused("out: expected bfloat16 of shape (5, 21), got uint16 of shape (5, 21)"):
        packed(A, np.zeros(OUT, np.uint16), residual=np.zeros(OUT, ml_dtypes.bfloat16))


def test_a_residual_is_no_output() -> None:
    packed = pack_gemm(B, output=Output("float32", 0.5, residual=Residual("float32")))
    out = np.zeros(OUT, np.float32)
    with refused("out: expected memory apart from the inputs"):
        packed(A, out, residual=out)


def test_targets() -> None:
    for target in (None, 3):
        with pytest.raises(TargetError) as caught:
            pack_gemm(B, target=target)  # type: ignore[arg-type]
        assert str(caught.value) == f"target: expected a level's name, got {target}"


def test_batches() -> None:
    packed = pack_gemm(np.stack([B, B]))
    for shape in ((5, DEPTH), (3, 5, DEPTH), (1, 2, 5, DEPTH)):
        with refused(f"a: expected uint8 of shape (2, rows, 37), got uint8 of shape {shape}"):
            packed(np.zeros(shape, np.uint8))


def test_floats_that_are_quantized() -> None:
    output = Output("float32", 0.5)
    packed = pack_gemm(B, quantize=QUANTIZE("tensor"), output=output)
    floats = A.astype(np.float32)
    with refused("a: expected float32 of shape (..., rows, 37), got uint8 of shape (5, 37)"):
        packed(A)
    with refused("a: expected this machine's byte order, got >f4"):
        packed(floats.astype(">f4"))
    with refused("a: expected memory aligned to its 4-byte elements"):
        packed(np.zeros(4 * 5 * DEPTH + 1, np.uint8)[1:].view(np.float32).reshape(5, DEPTH))
    for bad in (NAN, INF, -INF):
        floats[1, 2] = bad
        with refused("a: expected finite elements, got the range (...)"):
            packed(floats)
    with refused('a: cannot be bound with the range "tensor", which each call finds anew'):
        packed.bind(floats, np.empty(OUT, np.float32))


def test_another_output_stage_is_checked_as_the_first() -> None:
    packed = pack_gemm(B, quantize=QUANTIZE("row"), output=Output("float32", 0.5))
    with refused("output.row_scale: a range found at run time is the row's scale"):
        packed.with_output(Output("float32", 0.5, row_scale=True))
    with refused("quantize: a range found at run time needs a real output stage"):
        packed.with_output(Output())
    with refused("multiplier: expected 1 or 21 values, got 2"):
        packed.with_output(Output("float32", [0.5, 0.5]))


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_scale_so_small_that_six_is_no_code(activation) -> None:
    """6 / scale beyond all integers is the last code, no error."""
    output = Output("uint8", 0.5, 3, activation=activation, scale=1e-38)
    assert output.params().tolist()[:3] == [3, 3, 255]
