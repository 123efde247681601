"""The recorded spaces can be read, and today's default configurations are near the best of them."""

import json
import math

import pytest

from benchmarks import RECORDS
from benchmarks.tuning_spaces import Space, random_trials_needed, trials_needed
from lowgemm import schedules


@pytest.fixture(scope="module")
def spaces() -> list[Space]:
    content = json.loads((RECORDS / "tuning-spaces.json").read_text())
    return [Space.from_json(data) for data in content["spaces"]]


def test_spaces_come_back_as_they_were(spaces: list[Space]) -> None:
    space = min(spaces, key=lambda s: len(s.rows))
    again = Space.from_json(json.loads(space.render()))
    assert (again.task, again.reference, again.rows) == (space.task, space.reference, space.rows)


def test_defaults_are_near_the_best(spaces: list[Space]) -> None:
    """A change of the heuristics that loses what was measured shows here, without measuring."""
    near = [space.default <= 1.07 for space in spaces]
    assert len(near) >= 10
    assert sum(near) >= math.ceil(0.9 * len(near))


def test_trials_are_counted_until_one_is_good(spaces: list[Space]) -> None:
    """In a space where the default is the best there is nothing to search; where it is the worst, there is."""
    task = min(spaces, key=lambda s: len(s.rows)).task
    default = schedules.default_config(task)
    space = schedules.config_space(task)
    best = Space(task, default, {c: [1.0 if c == default else 2.0, 0.0, 7] for c in space})
    assert trials_needed(best, 0, []) == 1
    worst = Space(task, default, {c: [2.0 if c == default else 1.0, 0.0, 7] for c in space})
    assert trials_needed(worst, 0, []) == 2
    assert {random_trials_needed(worst, seed) for seed in range(100)} == {1, 2}
