"""The schedule of embedding bags: sums in registers or the first cache, rows fetched ahead."""

from collections.abc import Callable
from math import gcd

import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as build

from lowgemm.schedules import _vectors
from lowgemm.schedules._prefetch import prefetch
from lowgemm.schedules._vectors import load, register, store, when
from lowgemm.targets import CpuTarget
from lowgemm.topi import BagForm, narrowed
from lowgemm.topi import stored as stored_dtype

# Vectors in a step of the loop over the columns, where sums are in memory: of codes of 8 bits, a line.
_UNROLLED = 8
# How many rows ahead memory is asked for, and how many bytes at most.
_AHEAD = 16
_AHEAD_BYTES = 4096
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

    Sums that take more registers than there are stay in the first cache: so each row is read once, from end to end.
    """
    starts, lanes = _column_vectors(form.columns, target)
    # Two registers are for scale and bias, two for the codes on their way.
    fitting = len(starts) <= target.registers - 4
    size = _BYTES[form.element]
    per_element = form.format.per_byte if form.format else 1
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

        def coming(place):
            """The row that is fetched while that at `place` is added."""
            index = indices[tirx.min(place + ahead, count - 1)].astype("int64")
            if mapping is not None:
                index = mapping[tirx.min(tirx.max(index, 0), limit - 1)].astype("int64")
            return build.Bind(index)

        def fetch(row, element) -> None:
            build.evaluate(prefetch(table, [row, element], _KIND))

        def add_row(sums: _Sums, row, later, place, position) -> None:
            def read(offset, n: int):
                return load(table, [row, offset], n)

            weight = None
            if weights is not None:
                weight = build.Bind(weights[place if form.weights == "index" else position])
            factors = tuple(f if f is None else build.Bind(f) for f in form.factors(read, weight))

            def fetch_part(start, columns: int) -> None:
                for first in range(0, columns // per_element, _LINE // size):
                    fetch(later, start // per_element + first)

            def add(total: _Sum, start) -> None:
                total.put(form.add(total.get(), read, start, lanes, factors))

            sums.each(add, fetch_part)

        def add_index(sums: _Sums, place, position) -> None:
            """The row, if it is there."""
            later = coming(place)
            lines = _lines(row_bytes)
            # Of long rows, the parts are fetched when the same parts of this row are added.
            for line in lines if fitting else lines[-1:]:
                fetch(later, line // size)
            index = build.Bind(indices[place].astype("int64"))

            def add() -> None:
                if mapping is None:
                    add_row(sums, index, later, place, position)
                    return
                row = build.Bind(mapping[index].astype("int64"))
                inside = tirx.all(row >= 0, row < rows)

                def kept() -> None:
                    add_row(sums, row, later, place, position)

                when(row != -1, lambda: when(inside, kept, refuse))

            when(tirx.all(index >= 0, index < limit), add, refuse)

        def sum_rows(bag, begin, length) -> None:
            sums = _Sums(starts, lanes, fitting)
            sums.each(lambda total, start: total.put(_zeros(lanes)))
            with build.serial(length) as position:
                add_index(sums, build.Bind(begin + position), position)
            factor = _reciprocal(length) if form.mean else None

            def write(total, start) -> None:
                value = total.get() if factor is None else total.get() * factor
                store(dst, narrowed(value, form.result, form.half_up), [bag, start], lanes)

            sums.each(write)

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
            when(tirx.all(*fits), lambda: sum_rows(bag, begin, length), refuse)
    return made()


class _Sum:
    """A vector of sums, wherever it is."""

    def __init__(self, buffer, at, lanes: int) -> None:
        self._buffer, self._at, self._lanes = buffer, at, lanes

    def get(self):
        return load(self._buffer, [self._at], self._lanes)

    def put(self, value) -> None:
        store(self._buffer, value, [self._at], self._lanes)


class _Sums:
    """A bag's sums: one vector for each of `starts`, which follow each other but for the last; in registers, or in an
    array."""

    def __init__(self, starts: list[int], lanes: int, registers: bool) -> None:
        self._starts, self._lanes = starts, lanes
        self._each = [_Sum(register(lanes, "float32"), 0, lanes) for _ in starts if registers]
        if not registers:
            self._memory = register(len(starts) * lanes, "float32")

    def each(self, body: Callable, before: Callable | None = None) -> None:
        """Emit `body(vector of sums, its first column)` for all of them; if they are in memory, `before(first column,
        columns)` in front of each step of the loop."""
        for total, start in zip(self._each, self._starts, strict=bool(self._each)):
            body(total, start)
        if not self._each:
            self._each_in_memory(body, before)

    def _each_in_memory(self, body: Callable, before: Callable | None) -> None:
        lanes, count = self._lanes, len(self._starts)
        whole = count if self._starts[-1] % lanes == 0 else count - 1
        with build.serial(whole // _UNROLLED) as step:
            if before:
                before(step * (_UNROLLED * lanes), _UNROLLED * lanes)  # pyright: ignore[reportOperatorIssue]
            for i in range(_UNROLLED):
                start = (step * _UNROLLED + i) * lanes  # pyright: ignore[reportOperatorIssue]
                body(_Sum(self._memory, start, lanes), start)
        for number in range(whole // _UNROLLED * _UNROLLED, count):
            body(_Sum(self._memory, number * lanes, lanes), self._starts[number])


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
    return lines


def _reciprocal(length):
    one = tirx.const(1.0, "float32")
    return tirx.Select(length > 0, one / tirx.max(length, 1).astype("float32"), one)


def _zeros(lanes: int):
    zero = tirx.const(0.0, "float32")
    return zero if lanes == 1 else tirx.Broadcast(zero, lanes)
