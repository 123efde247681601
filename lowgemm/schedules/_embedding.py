"""The schedule of embedding bags: sums in registers, rows fetched ahead."""

from math import gcd

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._vectors import load, register, store, when
from lowgemm.targets import CpuTarget
from lowgemm.topi import BagForm, narrowed
from lowgemm.topi import stored as stored_dtype

# How many rows ahead memory is asked for, and how many bytes at most.
_AHEAD = 16
_AHEAD_BYTES = 16384
# Of longer rows only the first lines are asked for: the CPU sees the rest coming.
_MOST_LINES = 32
_LINE = 64
# For reading, into the first cache; data, not code.
_KIND = (0, 3, 1)
_BYTES = {"uint8": 1, "float32": 4, "float16": 2, "uint16": 2}


def schedule_bags(form: BagForm, target: CpuTarget) -> tvm.tirx.PrimFunc:
    """A function of any number of rows, indices and bags, one bag at a time, bags in parallel.

    Arguments in order: table `(rows, form.row_elements)`; mapping int32 `(unpruned,)` if pruned; indices `(count,)`;
    offsets `(bags + 1,)` if there are any; weights float32 `(n,)` if there are any; dst `(bags, columns)`; status int32
    `(1,)`, which becomes 1 if an offset, an index or a row of the mapping is out of range, or the bags do not cover the
    indices. Nothing is read out of range; the bag's sums then have no meaning.

    A bag whose columns take more registers than there are is summed in several passes over its rows.
    """
    starts, lanes = _column_vectors(form.columns, target)
    # Two registers are for scale and bias, two for the codes on their way.
    passes = -(-len(starts) // (target.registers - 4))
    stretch = -(-len(starts) // passes)
    # Passes are alike, the last one overlapping the one before it; codes begin with whole bytes.
    per_byte = form.format.per_byte if form.format else 1
    if passes > 1:
        starts = [i * lanes for i in range(stretch)]
    last = (form.columns - stretch * lanes) // per_byte
    size = _BYTES[form.element]
    row_bytes = form.row_elements * size
    ahead = max(1, min(_AHEAD, _AHEAD_BYTES // row_bytes))
    rows, count, bags, unpruned, weight_count = map(
        _vectors.size, ("rows", "count", "bags", "unpruned", "weight_count")
    )
    with _vectors.function() as made:
        table = _vectors.buffer_argument("table", (rows, form.row_elements), form.element)
        mapping, offsets, weights = None, None, None
        if form.pruned:
            mapping = _vectors.buffer_argument("mapping", (unpruned,), "int32")
        indices = _vectors.buffer_argument("indices", (count,), form.indices)
        if form.offsets:
            offsets = _vectors.buffer_argument("offsets", (bags + 1,), form.offsets)
        if form.weights:
            weights = _vectors.buffer_argument("weights", (weight_count,), "float32")
        dst = _vectors.buffer_argument("dst", (bags, form.columns), stored_dtype(form.result))
        status = _vectors.buffer_argument("status", (1,), "int32")
        limit = unpruned if form.pruned else rows

        def refuse() -> None:
            build.buffer_store(status, tirx.const(1, "int32"), [0])

        def prefetch(place) -> None:
            index = indices[tirx.min(place + ahead, count - 1)].astype("int64")
            if mapping is not None:
                index = mapping[tirx.min(tirx.max(index, 0), limit - 1)].astype("int64")
            row = build.Bind(index)
            for line in _lines(row_bytes):
                address = tirx.address_of(tirx.BufferLoad(table, [row, line // size]))
                build.evaluate(tirx.call_intrin("void", "tirx.prefetch", address, *_KIND))

        def add_row(row, place, position, sums, begin) -> None:
            def read(offset, n: int):
                return load(table, [row, offset], n)

            weight = None
            if weights is not None:
                weight = build.Bind(weights[place if form.weights == "index" else position])
            factors = tuple(f if f is None else build.Bind(f) for f in form.factors(read, weight))
            for acc, start in zip(sums, starts, strict=True):
                total = form.add(load(acc, [0], lanes), read, begin + start, lanes, factors)
                store(acc, total, [0], lanes)

        def sum_rows(bag, begin, length, number) -> None:
            column = 0 if passes == 1 else tirx.min(number * (stretch * lanes // per_byte), last)
            column = column if passes == 1 else build.Bind(column) * per_byte
            sums = [register(lanes, "float32") for _ in starts]
            for acc in sums:
                store(acc, _zeros(lanes), [0], lanes)
            with build.serial(length) as position:
                place = build.Bind(begin + position)
                if passes == 1:
                    prefetch(place)
                else:
                    when(number == 0, lambda: prefetch(place))
                index = build.Bind(indices[place].astype("int64"))

                def add() -> None:
                    if mapping is None:
                        add_row(index, place, position, sums, column)
                        return
                    row = build.Bind(mapping[index].astype("int64"))
                    inside = tirx.all(row >= 0, row < rows)

                    def kept() -> None:
                        add_row(row, place, position, sums, column)

                    when(row != -1, lambda: when(inside, kept, refuse))

                when(tirx.all(index >= 0, index < limit), add, refuse)
            factor = _reciprocal(length) if form.mean else None
            for acc, start in zip(sums, starts, strict=True):
                total = load(acc, [0], lanes)
                total = total if factor is None else total * factor
                value = narrowed(total, form.result, form.half_up)
                store(dst, value, [bag, column + start], lanes)

        if offsets is not None:
            when(tirx.any(offsets[0] != 0, offsets[bags] != count), refuse)
        with build.parallel(bags) as bag:
            at = [bag, bag + 1]  # pyright: ignore[reportOperatorIssue]
            if offsets is not None:
                at = [build.Bind(offsets[i].astype("int64")) for i in at]
            begin, end = at
            length = build.Bind(end - begin)
            fits = [begin >= 0, begin <= end, end <= count]
            if form.weights == "position":
                fits.append(length <= weight_count)

            def every_pass() -> None:
                if passes == 1:
                    sum_rows(bag, begin, length, 0)
                    return
                with build.serial(passes) as number:
                    sum_rows(bag, begin, length, number)

            when(tirx.all(*fits), every_pass, refuse)
    return made()


def _column_vectors(columns: int, target: CpuTarget) -> tuple[list[int], int]:
    """Where the vectors of a row start, and their lanes; the last one overlaps the one before it if need be."""
    lanes = target.lanes
    while lanes > columns:
        lanes //= 2
    starts = list(range(0, columns - lanes + 1, lanes))
    return starts if columns % lanes == 0 else [*starts, columns - lanes], lanes


def _lines(size: int) -> list[int]:
    """Bytes of a row of `size` bytes, one in each line that it lies in, in a table that begins with a line."""
    lines = list(range(0, size, _LINE))
    # Rows begin at multiples of this, so what is beyond whole lines may lie in two.
    if (size - 1) % _LINE >= gcd(size, _LINE):
        lines.append(size - 1)
    return lines[:_MOST_LINES]


def _reciprocal(length):
    one = tirx.const(1.0, "float32")
    return tirx.Select(length > 0, one / tirx.max(length, 1).astype("float32"), one)


def _zeros(lanes: int):
    zero = tirx.const(0.0, "float32")
    return zero if lanes == 1 else tirx.Broadcast(zero, lanes)
