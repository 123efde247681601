"""Tensors that are alive together lie apart, and the arena is not larger than it must be."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lowgemm.lower import Program, plan_memory

ALIGNMENT = 64

# One call: how many bytes it writes, and which of the tensors so far it reads (counted modulo their number).
CALLS = st.lists(
    st.tuples(st.integers(1, 5000), st.lists(st.integers(0, 99), max_size=3)),
    min_size=1,
    max_size=25,
)


def program_of(calls: list[tuple[int, list[int]]], views: bool = False) -> Program:
    """Tensor t0 is the input, call i writes t(i+1), the last one is the output.

    With `views`, every third tensor is read under a second name.
    """
    program = Program("avx2", ["t0"], [f"t{len(calls)}"])
    program.declare("t0", (64,), "uint8")
    weight = program.constant(np.zeros(7, np.uint8))
    for index, (size, reads) in enumerate(calls):
        sources = list(dict.fromkeys(f"t{read % (index + 1)}" for read in reads))
        if views:
            sources = [view(program, name) for name in sources]
        name = f"t{index + 1}"
        program.declare(name, (size,), "uint8")
        args = [*map(program.operand, sources), weight, program.operand(name)]
        program.call("kernel", args, f"layer{index}", "kernel")
    return program


def view(program: Program, name: str) -> str:
    if int(name[1:]) % 3:
        return name
    other = f"{name}/view"
    program.tensors[other] = program.tensors[name]
    program.aliases[other] = name
    return other


def lifetimes(program: Program) -> dict[str, tuple[int, int]]:
    """tensor -> the first and the last call that touches it; only of those in the arena."""
    fixed = {*program.inputs, *program.outputs, *program.constants}
    found: dict[str, tuple[int, int]] = {}
    for index, call in enumerate(program.calls):
        for operand in call.args:
            if operand.name not in fixed:
                first, _ = found.get(operand.name, (index, index))
                found[operand.name] = (first, index)
    return found


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@settings(max_examples=300, deadline=None, derandomize=True)
@given(CALLS, st.booleans())
def test_tensors_alive_together_do_not_overlap(calls, views: bool) -> None:
    program = program_of(calls, views)
    plan, alive = plan_memory(program), lifetimes(program)
    assert set(plan.offsets) == set(alive)
    ends = {name: plan.offsets[name] + program.tensors[name].nbytes for name in alive}
    assert all(offset % ALIGNMENT == 0 for offset in plan.offsets.values())
    assert max(ends.values(), default=0) <= plan.arena_bytes
    for name, (first, last) in alive.items():
        for other, (begin, end) in alive.items():
            if name < other and first <= end and begin <= last:
                apart = ends[name] <= plan.offsets[other] or ends[other] <= plan.offsets[name]
                assert apart, (name, other)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 5000), min_size=3, max_size=20))
def test_a_chain_takes_its_three_largest_tensors_at_most(sizes: list[int]) -> None:
    program = program_of([(size, [index]) for index, size in enumerate(sizes)])
    plan = plan_memory(program)
    inner = [aligned(size) for size in sizes[:-1]]
    neighbours = max(a + b for a, b in itertools.pairwise(inner))
    assert neighbours <= plan.arena_bytes <= sum(sorted(inner)[-3:])


def test_a_chain_takes_two_neighbours() -> None:
    plan = plan_memory(program_of([(128, [0]), (128, [1]), (64, [2]), (128, [3]), (64, [4])]))
    assert plan.arena_bytes == 256


def test_a_tensor_that_dies_makes_room() -> None:
    plan = plan_memory(program_of([(6400, [0]), (64, [1]), (6400, [2]), (64, [3]), (64, [4])]))
    assert plan.offsets["t1"] == plan.offsets["t3"]
    assert plan.arena_bytes == 6400 + 64


def test_a_tensor_read_late_keeps_its_room() -> None:
    calls = [(6400, [0]), (6400, [1]), (6400, [2]), (6400, [3, 1]), (64, [4])]
    assert plan_memory(program_of(calls)).arena_bytes == 3 * 6400


def test_views_share_memory_and_prolong_it() -> None:
    program = Program("avx2", ["x"], ["y"])
    for name in ("x", "a", "b", "c", "y"):
        program.declare(name, (640,), "uint8")
    program.aliases["view"] = "a"
    program.tensors["view"] = program.tensors["a"]

    def call(*names: str) -> None:
        program.call("kernel", [program.operand(name) for name in names], "layer", "kernel")

    call("x", "a")
    call("a", "b")
    call("b", "c")
    call("c", "view", "y")
    plan = plan_memory(program)
    assert set(plan.offsets) == {"a", "b", "c"}
    assert len(set(plan.offsets.values())) == 3


def test_inputs_outputs_and_constants_take_no_room() -> None:
    assert plan_memory(program_of([(5000, [0])])).arena_bytes == 0
