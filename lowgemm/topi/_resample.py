"""Float resize of one axis: each element of the result is a weighted sum of a few elements."""

import tvm
from tvm import te


def resample(outer: int, size: int, inner: int, out: int, taps: int) -> tvm.tirx.PrimFunc:
    """dst[o, y, i] = sum_t x[o, index[t, y], i] * weight[t, y].

    Arguments: x float32 `(outer, size, inner)`; index int32 and weight float32 `(taps, out)`; dst float32
    `(outer, out, inner)`.
    """
    x = te.placeholder((outer, size, inner), "float32", name="x")
    index = te.placeholder((taps, out), "int32", name="index")
    weight = te.placeholder((taps, out), "float32", name="weight")

    def value(o, y, i):
        terms = [x[o, index[t, y], i] * weight[t, y] for t in range(taps)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    dst = te.compute((outer, out, inner), value, name="dst")
    return te.create_prim_func([x, index, weight, dst])
