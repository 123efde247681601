"""Which trial comes next: a function of the database and the seed, that shares trials as time is."""

from collections import Counter
from dataclasses import asdict, replace

import pytest

from lowgemm import schedules
from lowgemm.tune._database import Record
from lowgemm.tune._search import PATIENCE, TaskState, next_task, propose

from fake_tuning import CPU, conv_task, depthwise_task, seconds

TASK = conv_task()
SPACE = schedules.config_space(TASK)


def trials(task=TASK, count: int = 0) -> list[Record]:
    """The first `count` trials: the default one, then the space in its order, by the fake times."""
    default = schedules.default_config(task)
    space = schedules.config_space(task)
    configs = [default, *(c for c in space if c != default)][:count]
    first = seconds(asdict(default))
    times = [seconds(asdict(config)) for config in configs]
    return [
        Record(task, c, CPU, t, t / first, 0.0, won=t == min(times[: i + 1]))
        for i, (c, t) in enumerate(zip(configs, times, strict=True))
    ]


def state(task=TASK, count: int = 0, kernels: int = 1) -> TaskState:
    return TaskState(task, kernels, schedules.config_space(task), trials(task, count))


def test_the_default_comes_first() -> None:
    assert propose(state(), [], 0, 8) == [schedules.default_config(TASK)]


@pytest.mark.parametrize("count", [1, 5, 30])
def test_the_same_database_and_seed_give_the_same_order(count: int) -> None:
    known = trials(count=count)
    first, second = (propose(state(count=count), known, 7, 8) for _ in range(2))
    assert first == second
    assert propose(state(count=count), known, 8, 8) != first


@pytest.mark.parametrize("count", [1, 5, 30, len(SPACE) - 3])
def test_nothing_is_proposed_twice(count: int) -> None:
    known = trials(count=count)
    found = propose(state(count=count), known, 0, 8)
    assert len(found) == min(8, len(SPACE) - count)
    assert len({*found}) == len(found)
    assert not {*found} & {record.config for record in known}
    assert {*found} <= {*SPACE}


def test_the_model_finds_the_valley() -> None:
    """Of configurations that were never measured, the proposed ones are far better than the others."""
    known = trials(count=40)
    tried = {record.config for record in known}
    proposed = propose(state(count=40), known, 0, 8)
    rest = sorted(seconds(asdict(c)) for c in SPACE if c not in tried)
    found = sorted(seconds(asdict(c)) for c in proposed)
    assert found[4] < rest[len(rest) // 4]


def test_other_shapes_teach_the_model() -> None:
    """With one trial of its own, a task starts where another one's records say that it is good."""
    other = conv_task(channels=128)
    known = [*trials(other, 60), *trials(count=1)]
    warm = propose(state(count=1), known, 0, 8)
    rest = sorted(seconds(asdict(c)) for c in SPACE)
    assert sorted(seconds(asdict(c)) for c in warm)[4] < rest[len(rest) // 4]


def test_a_task_without_trials_comes_first() -> None:
    assert next_task([state(count=10, kernels=50), state(depthwise_task())]) == state(
        depthwise_task()
    )


def test_trials_are_shared_as_time_is() -> None:
    """Tasks of three times the kernels get three times the trials."""
    counts = Counter[str]()
    heavy, light = conv_task(), conv_task(channels=128)
    while sum(counts.values()) < 40:
        states = [
            replace(state(heavy, 1 + counts["heavy"], 3), trials=flat(heavy, counts["heavy"])),
            replace(state(light, 1 + counts["light"], 1), trials=flat(light, counts["light"])),
        ]
        chosen = next_task(states)
        assert chosen is not None
        counts["heavy" if chosen.task == heavy else "light"] += 1
    # With the one that each had before, and the one that each would have next: 33 to 11.
    assert counts == {"heavy": 31, "light": 9}


def flat(task, count: int) -> list[Record]:
    """Trials that all took the same time, each by a hair the best, so that the task stays open."""
    space = schedules.config_space(task)
    return [
        Record(task, config, CPU, 1e-4, 1 - 1e-9 * i, 0.0, won=True)
        for i, config in enumerate(space[: 1 + count])
    ]


def test_a_task_that_no_longer_improves_is_done() -> None:
    lost = [replace(r, won=index == 0) for index, r in enumerate(trials(count=PATIENCE + 1))]
    saturated = replace(state(), trials=lost)
    assert saturated.done
    assert not replace(state(), trials=lost[:-1]).done
    assert next_task([saturated]) is None


def test_a_task_whose_space_is_measured_is_done() -> None:
    task = depthwise_task()
    assert state(task, len(schedules.config_space(task))).done


def test_failures_teach_the_model_too() -> None:
    known = trials(count=40)
    bad = [r for r in known[1:] if getattr(r.config, "widen")]  # noqa: B009 - of one family only
    broken = [
        replace(r, failure="crash", seconds=None, relative=None, noise=None, won=False) for r in bad
    ]
    kept = [r for r in known if r not in bad]
    proposed = propose(replace(state(), trials=[*kept, *broken]), [*kept, *broken], 0, 7)
    assert sum(config.widen for config in proposed) <= 2
