"""Products with a packed weight: what convolutions, and matrix products of a fixed and of any number of rows, share.

They differ in where an element of the left operand stands, which is theirs to say.
"""

from collections.abc import Callable

import tvm
from tvm import s_tir, te, tirx

from lowgemm.packing import ConvPacking
from lowgemm.statements import argument, rewritten, with_body
from lowgemm.topi._blocks import block


def accumulated(
    axes: str,
    extents: tuple,
    left: Callable,
    weights: te.Tensor,
    packing: ConvPacking,
    taps: tuple = (),
    tap: Callable | None = None,
    part: tuple[int, Callable] | None = None,
) -> te.Tensor:
    """acc[.., o] = sum_{r, c, j} left[.., o, j] * W[o, r, c, j] modulo 2^32: the block `acc`, over `axes`.

    `left` gets the indices of all axes and j, of a run that is padded. `taps` are the reduction axes (r, c) of a filter
    window; without them the window is one tap, or what `tap` says of the indices of all axes. `part` is how long a part
    of the run is summed, and where it begins by the indices of all axes.
    """
    lanes, depth = packing.layout.lanes, packing.layout.depth
    length, begin = part or (packing.padded_run, lambda *_: 0)
    step = te.reduce_axis((0, length), "j")

    def element(*at):
        o, j = at[-1], begin(*at) + step
        r, c = tap(*at) if tap else taps or (0, 0)
        w = weights[o // lanes, r, c, j // depth, o % lanes, j % depth]
        return te.sum(left(*at, j).astype("int32") * w.astype("int32"), axis=[*taps, step])

    return block("acc", axes, extents, element)


def begun(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`func` with sums `acc` that begin with the argument `offset` of their column, which tensor expressions cannot
    say."""
    offset = argument(func, "offset")

    def begins(stmt: tirx.Stmt) -> tirx.Stmt:
        if not isinstance(stmt, s_tir.SBlockRealize) or stmt.block.name_hint != "acc":
            return stmt
        zeroed = stmt.block.init
        first = tirx.BufferLoad(offset, [zeroed.indices[-1]])
        init = tirx.BufferStore(zeroed.buffer, first, zeroed.indices)
        begun_block = with_body(stmt.block, stmt.block.body, init)
        return s_tir.SBlockRealize(stmt.iter_values, stmt.predicate, begun_block)

    return func.with_body(rewritten(func.body, begins))


def stored(axes: str, shape: tuple, element: Callable, whole: tuple | None) -> te.Tensor:
    """dst[..] = element(..), of `shape`: the block `dst`.

    Where vectors stick out of the output, elements of `whole` extents are held in a block `codes` first.
    """
    if whole is None:
        return block("dst", axes, shape, element)
    codes = block("codes", axes, whole, element)
    return block("dst", axes, shape, lambda *at: codes(*at))


def word_places(packing: ConvPacking, vectors: int) -> te.Tensor:
    """The argument `places`: where the words of each tile of `vectors` panels lie (`ConvPacking.pair`)."""
    _, *taps, words, _, _ = packing.packed_shape
    return te.placeholder((packing.panels // vectors, *taps, words + 1), "uint16", "places")
