"""The product of float32 activations with packed weights of fewer bits: what it means, element by element.

    inner[g, i, j] = the sum over k in group g of A[i, k] * value(W[k, j])     one fma after the other from 0, k rising
    total[i, j] = fma(inner[g, i, j], scale[g, j], total[i, j])                from 0, g rising
    C[i, j] = total[i, j] + bias[j]                                            if beta is 0; C is not read
    C[i, j] = fma(beta, C[i, j], total[i, j] + bias[j])                        otherwise

`value` is the number that a float stands for, or code - zero[g, j]: both exact in float32. Floats have no scale: they
are one group, and `total` is `inner`. So what becomes of a row depends on the row and the weight alone: not on how many
rows there are, nor on the level, nor on threads. Activations rounded to bfloat16 are an exception where the target
multiplies pairs of them.
"""

from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm.target.codegen import llvm_lookup_intrinsic_id

from lowgemm.packing_panels import WORD_FORMATS, PanelLayout
from lowgemm.topi._arith import f32, like, to_float
from lowgemm.topi._narrow import widened


@dataclass(frozen=True)
class FloatGemmForm:
    """What decides the code of a product: the weight's layout, whether its codes have zero points other than 0, and
    whether activations are rounded to bfloat16 first. With weights in pairs they are, and one instruction multiplies
    pairs."""

    layout: PanelLayout
    zero: bool = False
    rounded: bool = False

    @property
    def pairs(self) -> bool:
        """Whether an instruction takes whole words of weights."""
        return self.layout.kind == "bfloat16x2"

    @property
    def scaled(self) -> bool:
        """Whether weights are codes, in groups with scales."""
        return self.layout.kind in ("int8", "int4")


@dataclass
class FloatGemmArguments:
    """The arguments of the function that is being built, and its sizes. In order:

    a float32 `(m, k)`, adjacent within a row; weight `(panels, words, width)`, `PanelLayout.pack`;
    with scales: scale float32 `(groups, panels * width)`, zero likewise if the form has it, and group_size, which
    words do not straddle unless there is one group; bias float32 `(panels * width,)`; tasks, the least number of
    parallel tasks to cut the work into; beta float32; c like a, `(m, n)`. Sizes and integers have 64 bits.
    """

    a: tvm.tirx.Buffer
    weight: tvm.tirx.Buffer
    scale: tvm.tirx.Buffer | None
    zero: tvm.tirx.Buffer | None
    group_size: tvm.tirx.Var | None
    bias: tvm.tirx.Buffer
    tasks: tvm.tirx.Var
    beta: tvm.tirx.Var
    c: tvm.tirx.Buffer

    @staticmethod
    def declare(form: FloatGemmForm) -> "FloatGemmArguments":
        """Add the arguments to the function that is open in TVM's builder."""
        m, k, n, panels, words, groups = (T.int64() for _ in range(6))
        width = tirx.const(form.layout.width, "int64")

        def buffer(name: str, shape, dtype: str = "float32", rows: bool = False):
            strides = [T.int64(), tirx.const(1, "int64")] if rows else None
            return T.arg(name, T.buffer(shape, dtype, strides=strides, offset_factor=1))

        columns = panels * width
        a = buffer("a", (m, k), rows=True)
        weight = buffer("weight", (panels, words, width), form.layout.format.dtype)
        scale = zero = group_size = None
        if form.scaled:
            scale = buffer("scale", (groups, columns))
            zero = buffer("zero", (groups, columns)) if form.zero else None
            group_size = T.arg("group_size", T.int64())
        bias = buffer("bias", (columns,))
        tasks = T.arg("tasks", T.int64())
        beta = T.arg("beta", T.float32())
        c = buffer("c", (m, n), rows=True)
        return FloatGemmArguments(a, weight, scale, zero, group_size, bias, tasks, beta, c)


# The bits of 2^23 as float32: the integer that these bits hold in place of the lowest is added to it.
_INTEGERS = 0x4B000000
_MANTISSA = 23
# Codes of four bits are held plus this.
_INT4_OFFSET = 8


def weight_value(kind: str, word, step, zero=None, scarce: bool = False):
    """`value` of the element `step` of each lane of `word`, as float32.

    `step` may be an expression; `zero` is a vector, or nothing for zero points of 0. Where registers are `scarce`, none
    is taken for a constant if that can be.
    """
    if kind == "bfloat16":
        return widened(word, kind) if scarce else _bfloat16_value(word)
    if kind == "int4":
        return _int4_value(word, step, zero)
    value = to_float(word)
    return value if zero is None else value - zero


def _bfloat16_value(word):
    """In vectors of 32 bytes by one shuffle, of words that are read into both halves.

    LLVM takes two instructions, which both want a port that multiplies.
    """
    if word.ty.dtype.lanes != 8:
        return widened(word, "bfloat16")
    twice = tirx.reinterpret("int8x32", tirx.Shuffle([word, word], list(range(16))))
    # Each lane of the result is two bytes of zero, and the two bytes of a word.
    places = [-1 if i % 4 < 2 else i // 4 * 2 + i % 2 for i in range(32)]
    order = tirx.Shuffle([tirx.const(place, "int8") for place in places], list(range(32)))
    kind = tirx.const(llvm_lookup_intrinsic_id("llvm.x86.avx2.pshuf.b"), "uint32")
    spread = tirx.call_intrin("int8x32", "tirx.call_llvm_pure_intrin", kind, twice, order)
    return tirx.reinterpret("float32x8", spread)


def _int4_value(word, step, zero):
    """A code in the mantissa of 2^(23 - 4 * step) is that number plus the code, which a subtraction takes off exactly.

    It takes a mask and a subtraction, where moving the code to the lowest bits takes a shift and a conversion more.
    """
    bits = WORD_FORMATS["int4"].bits
    if isinstance(step, int):
        # The mantissa has room for five codes; the last three are shifted down as one.
        fitting = _MANTISSA // bits
        shift = bits * 3 if step >= fitting else 0
        place = bits * step - shift
        word = word >> _lanes(word, shift) if shift else word
    else:
        word, place = word >> tirx.Broadcast(step.astype("uint32") * bits, word.ty.dtype.lanes), 0
    mark = _INTEGERS - (place << _MANTISSA)
    field = word & _lanes(word, 15 << place)
    real = tirx.reinterpret(like("float32", word), field | _lanes(word, mark))
    offset = f32(float(2 ** (_MANTISSA - place) + _INT4_OFFSET))
    offset = tirx.Broadcast(offset, word.ty.dtype.lanes)
    return real - (offset if zero is None else offset + zero)


def _lanes(word, value: int):
    return tirx.Broadcast(tirx.const(value, "uint32"), word.ty.dtype.lanes)
