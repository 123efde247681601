"""The schedules of products with sparse weights, for any sizes.

A vector holds neighbouring columns of the dense matrix. All of the weight is read for a few vectors of columns before
the next ones, so that these stay in a cache.
"""

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm import intrin
from lowgemm.schedules import _vectors
from lowgemm.schedules._vectors import load, register, store, vectors, when
from lowgemm.targets import CpuTarget
from lowgemm.topi import BLOCK, SPARSE_PARAMS, SparseForm, fma, sparse_code

# Vectors of columns in registers: as many chains of additions hide their latency.
_TILE = 4
_FLOAT_TILE = 8
# Lanes for fewer columns than a vector has.
_FEW = 4


def schedule_sparse_blocks(form: SparseForm, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """A function of any numbers of outputs, depth, columns and blocks; at least one of each but blocks.

    Arguments in order: starts int32 `(outputs + 1,)`; blocks int32 `(count,)`; values int32 `(count, words)`, the four
    weights of a block as the words that `intrin.word_dot` takes; x uint8 `(depth, columns)`; if codes: offset int32
    `(outputs,)`, weight_zero int32 `(outputs,)` if the form has it, bias and factor float32 `(outputs,)`, params
    float32 `(SPARSE_PARAMS,)`; plus int32 `(outputs, columns)` if the form has it; dst `(outputs, columns)` uint8 if
    codes, else int32. Blocks are in range, and their weights beyond the depth zero.

    First x becomes words, by vectors: `[vector][block][word][lane]`. The last vector overlaps the one before it.
    """
    lanes, words = target.lanes, BLOCK // target.dot_depth
    dot = intrin.word_dot(target, lanes)
    outputs, depth, columns, count = map(_vectors.size, ("outputs", "depth", "columns", "count"))
    dst_type = "uint8" if form.codes else "int32"
    with _vectors.function() as made:
        argument = _vectors.buffer_argument
        starts = argument("starts", (outputs + 1,), "int32")
        blocks = argument("blocks", (count,), "int32")
        values = argument("values", (count, words), "int32")
        x = argument("x", (depth, columns), "uint8")
        offset, zeros, plus, held = None, None, None, []
        if form.codes:
            offset = argument("offset", (outputs,), "int32")
            if form.weight_zero:
                zeros = argument("weight_zero", (outputs,), "int32")
            held = [argument(name, (outputs,), "float32") for name in ("bias", "factor")]
            held.append(argument("params", (SPARSE_PARAMS,), "float32"))
        if form.plus:
            plus = argument("plus", (outputs, columns), "int32")
        dst = argument("dst", (outputs, columns), dst_type)

        groups = build.Bind(tirx.floordiv(columns + (lanes - 1), lanes))
        height = build.Bind(tirx.floordiv(depth + (BLOCK - 1), BLOCK))
        staged = build.alloc_buffer((groups, height, words, lanes), "int32")
        sums = build.alloc_buffer((groups, lanes), "int32") if form.weight_zero else None

        def first(group):
            """The first column of a vector."""
            return tirx.max(tirx.min(group * lanes, columns - lanes), 0)

        def stage(group, block, lane, n: int) -> None:
            at = [tirx.min(block * BLOCK + i, depth - 1) for i in range(BLOCK)]
            start = first(group) + lane
            kind = "int32" if n == 1 else f"int32x{n}"
            rows = [load(x, [row, start], n).astype(kind) for row in at]
            each = BLOCK // words
            for word in range(words):
                value = rows[word * each]
                for i in range(1, each):
                    shift = tirx.const(32 // each * i, "int32")
                    value = value | rows[word * each + i] << _spread(shift, n)
                store(staged, value, [group, block, word, lane], n)

        def add_rows(group, lane, n: int) -> None:
            kind = "int32" if n == 1 else f"int32x{n}"
            acc = register(n, "int32")
            store(acc, _spread(tirx.const(0, "int32"), n), [0], n)
            with build.serial(depth) as row:
                value = load(x, [row, first(group) + lane], n).astype(kind)
                store(acc, load(acc, [0], n) + value, [0], n)
            store(sums, load(acc, [0], n), [group, lane], n)

        def by_vectors(body) -> None:
            """`body(lane, lanes)`: whole vectors, or, where there are fewer columns, one column after the other."""

            def single() -> None:
                with build.serial(columns) as lane:
                    body(lane, 1)

            when(columns >= lanes, lambda: body(0, lanes), single)

        with build.parallel(height) as block, build.serial(groups) as group:
            by_vectors(lambda lane, n: stage(group, block, lane, n))
        if sums is not None:
            with build.parallel(groups) as group:
                by_vectors(lambda lane, n: add_rows(group, lane, n))

        def finish(row, group, acc) -> None:
            total = load(acc, [0], lanes)
            scratch = register(lanes, dst_type)

            def result(total, n: int):
                if offset is None:
                    return total
                total = total + _spread(offset[row], n)
                if sums is not None and zeros is not None:
                    total = total - load(sums, [group, 0], n) * _spread(zeros[row], n)
                *by_row, params = held
                each = [v[row] for v in by_row] + [params[i] for i in range(SPARSE_PARAMS)]
                code = sparse_code(total, *(_spread(v, n) for v in each))
                return code.astype(f"uint8x{n}")

            def whole() -> None:
                at = [row, first(group)]
                value = total if plus is None else total + load(plus, at, lanes)
                store(dst, result(value, lanes), at, lanes)

            def few() -> None:
                value = total
                if plus is not None:
                    more = register(lanes, "int32")
                    store(more, _spread(tirx.const(0, "int32"), lanes), [0], lanes)
                    with build.serial(columns) as lane:
                        build.buffer_store(more, plus[row, lane], [lane])
                    value = value + load(more, [0], lanes)
                store(scratch, result(value, lanes), [0], lanes)
                with build.serial(columns) as lane:
                    build.buffer_store(dst, scratch[lane], [row, lane])

            when(columns >= lanes, whole, few)

        def tile(row, group, n: int) -> None:
            accs = [register(lanes, "int32") for _ in range(n)]
            for acc in accs:
                store(acc, _spread(tirx.const(0, "int32"), lanes), [0], lanes)
            begin = build.Bind(starts[row].astype("int64"))
            with build.serial(starts[row + 1].astype("int64") - begin) as b:
                place = build.Bind(begin + b)
                block = build.Bind(blocks[place].astype("int64"))
                for word in range(words):
                    weight = _spread(values[place, word], lanes)
                    for v, acc in enumerate(accs):
                        value = load(staged, [group + v, block, word, 0], lanes)
                        store(acc, dot(load(acc, [0], lanes), value, weight), [0], lanes)
            for v, acc in enumerate(accs):
                finish(row, group + v, acc)

        def tiles(n: int) -> None:
            number = tirx.floordiv(groups + (n - 1), n)
            with build.parallel(number * outputs) as i:
                at = build.Bind(tirx.min(tirx.floordiv(i, outputs) * n, groups - n))
                tile(build.Bind(tirx.floormod(i, outputs)), at, n)

        when(groups >= _TILE, lambda: tiles(_TILE), lambda: tiles(1))
    return made()


def schedule_sparse_rows(plus: bool, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """A function of any sizes: dst[i, j] = acc of acc = fma(value, x[place, j], acc), from 0 or `plus` on.

    Arguments in order: starts int32 `(outputs + 1,)`; places int32 `(count,)` and values float32 `(count,)`, row by
    row; x float32 `(depth, columns)`; plus float32 `(outputs, columns)` if there is one; dst float32
    `(outputs, columns)`. Places are in range.
    """
    lanes = target.lanes
    wide = _FLOAT_TILE * lanes
    outputs, depth, columns, count = map(_vectors.size, ("outputs", "depth", "columns", "count"))
    with _vectors.function() as made:
        argument = _vectors.buffer_argument
        starts = argument("starts", (outputs + 1,), "int32")
        places = argument("places", (count,), "int32")
        values = argument("values", (count,), "float32")
        x = argument("x", (depth, columns), "float32")
        before = argument("plus", (outputs, columns), "float32") if plus else None
        dst = argument("dst", (outputs, columns), "float32")

        def some(row, start, n: int, width: int) -> None:
            """`n` vectors of `width` columns of a row, from `start` on."""
            sums = [register(width, "float32") for _ in range(n)]
            zero = _spread(tirx.const(0.0, "float32"), width)
            for v, acc in enumerate(sums):
                at = [row, start + v * width]
                store(acc, zero if before is None else load(before, at, width), [0], width)
            begin = build.Bind(starts[row].astype("int64"))
            with build.serial(starts[row + 1].astype("int64") - begin) as k:
                value = _spread(values[begin + k], width)
                place = build.Bind(places[begin + k].astype("int64"))
                for v, acc in enumerate(sums):
                    each = load(x, [place, start + v * width], width)
                    store(acc, fma(value, each, load(acc, [0], width)), [0], width)
            for v, acc in enumerate(sums):
                store(dst, load(acc, [0], width), [row, start + v * width], width)

        number = tirx.floordiv(columns + (wide - 1), wide)
        with build.parallel(number * outputs) as i:
            start = build.Bind(tirx.floordiv(i, outputs) * wide)
            row = build.Bind(tirx.floormod(i, outputs))
            rest = build.Bind(tirx.min(columns - start, wide))

            def piece(at, width: int) -> None:
                some(row, at, 1, width)

            def part() -> None:
                when(
                    columns >= lanes,
                    lambda: vectors(start, rest, columns, lanes, piece),
                    lambda: vectors(start, rest, columns, _FEW, piece),
                )

            when(rest == wide, lambda: some(row, start, _FLOAT_TILE, lanes), part)
    return made()


def _spread(value, lanes: int):
    return value if lanes == 1 else tirx.Broadcast(value, lanes)
