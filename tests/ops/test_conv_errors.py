"""What a convolution cannot compute right is refused in one line that names the argument and what was expected."""

import re
from typing import Any

import numpy as np
import pytest

from lowgemm import ops
from lowgemm.ops import Output, Residual, pack_conv

W = np.ones((16, 8, 3, 3), np.int8)
X = np.ones((1, 6, 7, 8), np.uint8)


def case(message: str, weight: Any = W, **options: Any):
    return pytest.param(message, weight, options, id=message[:60])


@pytest.mark.parametrize(
    ("message", "weight", "options"),
    [
        case("weight: expected an array, got list", [1]),
        case("weight: expected uint8 or int8, got float32 of shape (16, 8, 3, 3)", W.astype("f4")),
        case("weight: expected 3 to 5 axes, got shape (16, 8)", W[:, :, 0, 0]),
        case("weight: expected 3 to 5 axes, got shape (1, 1, 16, 8, 3, 3)", W[None, None]),
        case("weight: expected no axis to be empty, got shape (16, 0, 3, 3)", W[:, :0]),
        case(
            "weight: expected 4 to 6 axes, the first 2 groups, got shape (16, 8, 3, 3)",
            groups=2,
            layout="fbgemm",
        ),
        case("layout: expected one of oi, fbgemm, got io", layout="io"),
        case("groups: expected an integer from 1, got 0", groups=0),
        case("groups: 3 do not divide 16 channels of the weight", groups=3),
        case("x_dtype: expected one of uint8, int8, got float32", x_dtype="float32"),
        case("x_zero_point: expected an integer from 0 to 255, got -1", x_zero_point=-1),
        case(
            "x_zero_point: expected an integer from -128 to 127, got 128",
            x_dtype="int8",
            x_zero_point=128,
        ),
        case("weight_zero_point: expected integers, got float64", weight_zero_point=1.5),
        case("weight_zero_point: expected -128 to 127, got 128", weight_zero_point=128),
        case("weight_zero_point: expected 1 or 16 values, got 2", weight_zero_point=[1, 2]),
        case(
            "weight_zero_point: expected 1, 2 or 16 values, got 3",
            weight_zero_point=[1, 2, 3],
            groups=2,
        ),
        case("strides: expected an integer from 1, got 0", strides=0),
        case("strides: expected one or 2 values, got 3", strides=(1, 1, 1)),
        case("dilations: expected an integer from 1, got 0", dilations=(1, 0)),
        case("padding: expected an integer from 0, got -1", padding=-1),
        case("padding: expected an integer from 0, got 0.5", padding=(0.5, 1)),
        case("padding: expected one, 2 or 4 values, got 3", padding=(1, 1, 1)),
        case("output_padding: only a transposed convolution takes it", output_padding=1),
        case("output_padding: expected an integer from 0, got -1", output_padding=-1),
        case(
            "weight: sums of output channel 5 may not fit 32 bits",
            np.where(np.arange(7)[:, None, None] == 5, 127, 1) * np.ones((7, 70000, 1), np.int8),
        ),
        case(
            "output.row_scale: a convolution has none", output=Output("uint8", 1.0, row_scale=True)
        ),
        case("output: expected Output, got 'uint8'", output="uint8"),
        case("multiplier: expected 1 or 16 values, got 3", output=Output("uint8", np.ones(3))),
        case("bias: expected 16 values, got 3", output=Output(bias=np.ones(3, np.int32))),
    ],
)
def test_packing_is_refused(message: str, weight: Any, options: dict[str, Any]) -> None:
    if isinstance(weight, np.ndarray) and weight.dtype.kind == "i":
        weight = weight.astype(np.int8)
    with pytest.raises(ops.OperandError, match=f"^{re.escape(message)}$"):
        pack_conv(weight, **options)


def test_sums_that_just_fit_are_taken() -> None:
    """255 * 127 * 66311 is the largest multiple below 2^31."""
    w = np.full((1, 66311, 1), 127, np.int8)
    x = np.full((1, 2, 66311), 255, np.uint8)
    assert (pack_conv(w)(x) == 255 * 127 * 66311).all()
    with pytest.raises(ops.OperandError, match="channel 0 may not fit"):
        pack_conv(np.full((1, 66312, 1), 127, np.int8))


def test_sums_that_just_do_not_fit_are_refused_at_either_end() -> None:
    """2^31 itself is refused; where codes lie on both sides of the zero point, both signs count."""
    pack_conv(np.full((1, 65793, 1), -128, np.int8))
    with pytest.raises(ops.OperandError, match="channel 0 may not fit"):
        pack_conv(np.full((1, 65794, 1), -128, np.int8))
    signs = np.where(np.arange(132104) % 2, 127, -127).astype(np.int8).reshape(1, -1, 1)
    pack_conv(signs[:, :132104])
    pack_conv(signs[:, :132104], x_zero_point=255)
    middle = np.full((1, 131072, 1), -128, np.int8)
    pack_conv(middle[:, 1:], x_dtype="int8")
    for point in (0, 1):
        with pytest.raises(ops.OperandError, match="channel 0 may not fit"):
            pack_conv(middle, x_dtype="int8", x_zero_point=point)


CALLS = {
    "x: expected an array, got list": [[1]],
    "x: expected uint8 of shape (batch, height, width, 8), got int8 of shape (1, 6, 7, 8)": X.view(
        "i1"
    ),
    "x: expected uint8 of shape (batch, height, width, 8), got uint8 of shape (1, 6, 7, 4)": X[
        ..., :4
    ],
    "x: expected uint8 of shape (batch, height, width, 8), got uint8 of shape (6, 7, 8)": X[0],
    "x: expected sizes that the kernel (3, 3) fits, got (2, 7)": X[:, :2],
    "x: expected a C-contiguous array, got strides (336, 112, 8, 1)": X[:, ::2],
}


@pytest.mark.parametrize("message", CALLS, ids=lambda message: message[:50])
def test_input_is_refused(message: str) -> None:
    with pytest.raises(ops.OperandError, match=f"^{re.escape(message)}$"):
        pack_conv(W)(CALLS[message])


def test_input_of_a_known_shape_is_checked_all_the_same() -> None:
    packed = pack_conv(W)
    packed(X)
    for message, x in {
        "x: expected a C-contiguous array, got strides (...)": X.transpose(0, 2, 1, 3).copy(),
        "x: expected uint8 of shape (batch, height, width, 8), got int8 of shape (...)": X.view(
            "i1"
        ),
    }.items():
        x = x.transpose(0, 2, 1, 3) if "contiguous" in message else x
        assert x.shape == X.shape
        pattern = re.escape(message).replace(re.escape("..."), ".*")
        with pytest.raises(ops.OperandError, match=f"^{pattern}$"):
            packed(x)


def test_output_and_residual_are_refused() -> None:
    plain, added = (
        pack_conv(W),
        pack_conv(W, output=Output("uint8", 1.0, scale=1, residual=Residual())),
    )
    out = np.empty((1, 4, 5, 16), np.int32)
    frozen = out.copy()
    frozen.flags.writeable = False
    for message, call in {
        "out: expected int32 of shape (1, 4, 5, 16), got uint8 of shape (1, 4, 5, 16)": lambda: (
            plain(X, out.astype(np.uint8))
        ),
        "out: expected int32 of shape (1, 4, 5, 16), got int32 of shape (4, 5, 16)": lambda: plain(
            X, out[0]
        ),
        "out: expected an array that can be written to": lambda: plain(X, frozen),
        "residual: this convolution takes no residual": lambda: plain(X, residual=out),
        "residual: this convolution needs a residual": lambda: added(X),
        "residual: expected uint8 of shape (1, 4, 5, 16), got int32 of shape (1, 4, 5, 16)": lambda: (
            added(X, residual=out)
        ),
    }.items():
        with pytest.raises(ops.OperandError, match=f"^{re.escape(message)}$"):
            call()


def test_memory_of_the_input_is_no_output() -> None:
    memory = np.zeros(4 * 4 * 5 * 16, np.uint8)
    x = memory[: X.size].reshape(X.shape)
    with pytest.raises(ops.OperandError, match=r"^out: expected memory apart"):
        pack_conv(W)(x, memory.view(np.int32).reshape(1, 4, 5, 16))


def test_transposed_output_may_be_cut_away() -> None:
    packed = pack_conv(np.ones((8, 4, 2), np.int8), padding=3, strides=2, transposed=True)
    with pytest.raises(ops.OperandError, match=re.escape("the kernel (2,) fits, got (3,)")):
        packed(np.ones((1, 3, 8), np.uint8))
    assert packed.out_shape((1, 4, 8)) == (1, 2, 4)
