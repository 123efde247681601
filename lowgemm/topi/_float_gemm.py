"""The product of float32 activations with packed weights of fewer bits: what it means, element by element.

    inner[g, i, j] = the sum over k in group g of A[i, k] * value(W[k, j])     one fma after the other from 0, k rising
    total[i, j] = fma(inner[g, i, j], scale[g, j], total[i, j])                from 0, g rising
    C[i, j] = total[i, j] + bias[j]                                            if beta is 0; C is not read
    C[i, j] = fma(beta, C[i, j], total[i, j] + bias[j])                        otherwise

`value` is the number that a float stands for, or code - zero[g, j]: both exact in float32. Floats have no scale: they
are one group, and `total` is `inner`. Codes of four bits, -8 to 7, are summed without their sign, and what that adds is
taken off once a group:

    sum[g, i] = the sum over k in group g of A[i, k]     of whole words eight sums, one for each place, k rising; then
                                                         their halves, quarters and eighths; then the rest
    inner[g, i, j] = fma(-8 - zero[g, j], sum[g, i], the sum as above of A[i, k] * (code + 8))

Activations are multiplied by the powers of two that the codes' places in a word divide by, which is exact but for
activations below 2^-98 (of int8, which a level of 256 bits treats so, below 2^-102). So what becomes of a row depends
on the row and the weight alone: not on how many rows there are, nor on the level, nor on threads. Activations rounded
to bfloat16 are an exception where the target multiplies pairs of them.
"""

from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from lowgemm.packing_panels import WORD_FORMATS, PanelLayout
from lowgemm.topi._arith import like, to_float
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
    def summed(self) -> bool:
        """Whether codes are without their sign, so that sums of activations are taken off."""
        return self.layout.kind == "int4"

    @property
    def scaled(self) -> bool:
        """Whether weights are codes, in groups with scales."""
        return self.layout.kind in ("int8", "int4")


@dataclass
class FloatGemmArguments:
    """The arguments of the function that is being built, and its sizes. In order:

    a float32 `(m, k)`, adjacent within a row; weight, as `PanelLayout.pack` has it; with scales: scale float32
    `(groups, panels * width)`, zero likewise if the form has it (`PanelLayout.hold_zeros`), and group_size, which words
    do not straddle unless there is one group; bias float32 `(panels * width,)`; tasks, the least number of parallel
    tasks to cut the work into; beta float32; c like a, `(m, n)`. Sizes and integers have 64 bits.
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
        m, k, n, panels, inside, groups = (T.int64() for _ in range(6))
        width = tirx.const(form.layout.width, "int64")
        shape = (panels, inside) if form.layout.shifted else (panels, inside, width)

        def buffer(name: str, shape, dtype: str = "float32", rows: bool = False):
            strides = [T.int64(), tirx.const(1, "int64")] if rows else None
            return T.arg(name, T.buffer(shape, dtype, strides=strides, offset_factor=1))

        columns = panels * width
        a = buffer("a", (m, k), rows=True)
        weight = buffer("weight", shape, form.layout.format.dtype)
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


def weight_value(layout: PanelLayout, word, step, zero=None):
    """`value` of the element `step` of each lane of `word`, as float32, times the layout's `place_value`; of int4,
    code + 8.

    `word` is what is read for this step. `step` may be an expression; `zero` is a vector of zero points as they are
    held, or nothing for zero points of 0.
    """
    if layout.kind == "int4":
        return _int4_value(word, step)
    if layout.shifted:
        ones = (1 << layout.format.bits) - 1
        word = word & _lanes(word, ones << layout.lowest_bit)
        if layout.kind == "bfloat16":
            return tirx.reinterpret(like("float32", word), word)
        word = tirx.reinterpret(like("int32", word), word)
    elif layout.kind == "bfloat16":
        return widened(word, "bfloat16")
    value = to_float(word)
    return value if zero is None else value - zero


def _int4_value(word, step):
    """A mask and a conversion: for the last place, which a mask would leave with a sign, a shift instead."""
    if isinstance(step, int) and step == _LAST_PLACE:
        field = word >> _lanes(word, _BITS * step)
    elif isinstance(step, int):
        field = word & _lanes(word, 15 << (_BITS * step))
    else:  # of a word that is not full, and so not the last place
        mask = tirx.const(15, "uint32") << (step.astype("uint32") * _BITS)
        field = word & tirx.Broadcast(mask, word.ty.dtype.lanes)
    return to_float(field.astype(like("int32", word)))


_BITS = WORD_FORMATS["int4"].bits
_LAST_PLACE = WORD_FORMATS["int4"].steps - 1


def _lanes(word, value: int):
    return tirx.Broadcast(tirx.const(value, "uint32"), word.ty.dtype.lanes)
