"""The loop around the search: what is recorded, what wins, and that a run which was stopped goes on."""

import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from lowgemm import schedules
from lowgemm.errors import TuningError
from lowgemm.tune._database import Database, configs_for
from lowgemm.tune._measure import Outcome
from lowgemm.tune._tuner import Progress, Tuner, _wins

from fake_tuning import (
    CPU,
    FakeBuilder,
    FakeRunner,
    conv_task,
    depthwise_task,
    make_tuner,
    seconds,
    tune_in_a_process,
)

TASK = conv_task()
SPACE = schedules.config_space(TASK)
DEFAULT = schedules.default_config(TASK)
TRIALS = 60


def order(path: Path) -> list[tuple]:
    """The trials of a database as they were written."""
    return [(record.task.key, record.config) for record in Database(path).records]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("complete")
    make_tuner(folder / "db.jsonl", folder / "work").run(TRIALS)
    return folder / "db.jsonl"


def test_the_best_is_found(complete: Path) -> None:
    space = sorted(seconds(asdict(config)) for config in SPACE)
    best = configs_for(Database(complete).records, CPU)[TASK.key]
    assert seconds(asdict(best)) <= space[len(space) // 20]
    assert seconds(asdict(best)) < seconds(asdict(DEFAULT))


def test_the_same_seed_gives_the_same_order(complete: Path, tmp_path: Path) -> None:
    make_tuner(tmp_path / "db.jsonl", tmp_path / "work").run(TRIALS)
    assert order(tmp_path / "db.jsonl") == order(complete)
    make_tuner(tmp_path / "other.jsonl", tmp_path / "work", seed=1).run(TRIALS)
    assert order(tmp_path / "other.jsonl") != order(complete)


def test_a_run_goes_on_where_it_stopped(complete: Path, tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    lines = complete.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:10]))  # behind a batch
    runner = FakeRunner()
    make_tuner(path, tmp_path / "work", runner=runner).run(TRIALS)
    assert order(path) == order(complete)
    make_tuner(path, tmp_path / "work", runner=runner).run(TRIALS)
    assert len(order(path)) == TRIALS, "the trials of the database count"


def test_early_end_when_nothing_is_left(tmp_path: Path) -> None:
    task = depthwise_task()
    make_tuner(tmp_path / "db.jsonl", tmp_path / "work", Counter([task])).run(10_000)
    assert len(order(tmp_path / "db.jsonl")) <= len(schedules.config_space(task))


def test_a_failure_costs_one_trial(tmp_path: Path) -> None:
    """Whatever the kind: it is recorded with its reason, never wins, and the run goes on."""
    reasons = ["wrong result: 3 of 12544 values", "crash: SIGILL", "time: no result within 1 s"]
    bad = dict(zip(SPACE[::17], reasons * 20, strict=False))
    bad.pop(DEFAULT, None)
    broken = {config: "compiling: refused" for config in SPACE[5::29] if config not in bad}
    broken.pop(DEFAULT, None)
    path = tmp_path / "db.jsonl"
    tasks = Counter([TASK])
    tuner = make_tuner(path, tmp_path / "w", tasks, runner=FakeRunner(bad), broken=broken)
    tuner.run(len(SPACE))
    failed = {r.config: r.failure for r in Database(path).records if r.failure is not None}
    assert failed, "no trial met a failure: choose others"
    assert failed.items() <= {**bad, **broken}.items()
    assert not any(r.won for r in Database(path).records if r.failure)
    (result,) = tuner.results()
    assert result.failures == len(failed) and result.config not in failed


def test_even_the_default_may_fail(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    runner = FakeRunner({DEFAULT: "crash: SIGSEGV"})
    make_tuner(path, tmp_path / "work", Counter([TASK]), runner=runner).run(20)
    first, *_ = Database(path).records
    assert first.config == DEFAULT and first.failure == "crash: SIGSEGV"
    assert TASK.key in configs_for(Database(path).records, CPU)


@pytest.mark.parametrize(
    ("ratio", "noise", "wins"),
    [(0.9, 0.01, True), (0.98, 0.01, False), (0.999, 0.0, False), (1.1, 0.0, False)],
    ids=["clearly", "within-the-noise", "by-next-to-nothing", "slower"],
)
def test_a_win_is_larger_than_the_noise(ratio: float, noise: float, wins: bool) -> None:
    assert _wins(Outcome(None, (1.0,), (1.0,), ratio, noise)) is wins


def test_noise_keeps_the_incumbent(tmp_path: Path) -> None:
    path = tmp_path / "db.jsonl"
    runner = FakeRunner(noise=0.5)
    make_tuner(path, tmp_path / "work", Counter([TASK]), runner=runner).run(30)
    assert [r.config for r in Database(path).records if r.won] == [DEFAULT]
    assert configs_for(Database(path).records, CPU) == {}


def test_a_seeming_win_is_measured_again(tmp_path: Path) -> None:
    """A candidate that is fast once and not again has not won."""

    class Lucky(FakeRunner):
        def measure(self, job):
            outcome = super().measure(job)
            again = self.jobs.count(self.jobs[-1]) > 1
            ratio = 1.0 if again or job.incumbent is None else 0.5
            return Outcome(None, outcome.candidate, outcome.incumbent, ratio, 0.0)

    make_tuner(tmp_path / "db", tmp_path / "work", Counter([TASK]), runner=Lucky()).run(10)
    assert [r.won for r in Database(tmp_path / "db").records] == [True, *[False] * 9]


def test_relative_times_are_those_to_the_first_trial(complete: Path) -> None:
    """Each is measured against the incumbent of its moment; the product is the ratio to the default."""
    for record in Database(complete).records:
        first = schedules.default_config(record.task)
        assert record.seconds is not None
        expected = seconds(asdict(record.config)) / seconds(asdict(first))
        assert record.relative == pytest.approx(expected)


def test_progress_tells_time_and_share_of_peak(tmp_path: Path) -> None:
    seen: list[Progress] = []
    tuner = make_tuner(tmp_path / "db.jsonl", tmp_path / "work", Counter([TASK]))
    tuner.run(9, seen.append)
    assert [p.done for p in seen] == [*range(1, 10)] and {p.total for p in seen} == {9}
    last = seen[-1]
    assert last.best_seconds is not None
    assert last.best_seconds == min(p.record.seconds or 1 for p in seen)
    assert last.peak_share == pytest.approx(2e-9 * TASK.shape.macs / last.best_seconds / 100)


def test_two_tuners_measure_nothing_twice(tmp_path: Path, processes) -> None:
    """Both at once on one file: the trials are those of both, each once."""
    path = tmp_path / "db.jsonl"
    arguments = [(str(path), str(tmp_path / name), TRIALS) for name in ("one", "two")]
    started = [processes.Process(target=tune_in_a_process, args=a) for a in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0
    lines = path.read_text().splitlines()
    found = order(path)
    assert len(lines) == len({*found}) == len(found)
    assert TRIALS <= len(found) <= TRIALS + 8, "the last batches may overlap"


def test_machines_share_the_trials(tmp_path: Path) -> None:
    runners = [FakeRunner(), FakeRunner()]
    builder = FakeBuilder(tmp_path)
    tasks, database = Counter([TASK]), Database(tmp_path / "db.jsonl")
    Tuner(tasks, database, runners, builder).run(40)  # pyright: ignore[reportArgumentType]
    assert len(database.records) == 40
    assert all(runner.jobs for runner in runners)


def test_machines_of_different_kinds_are_refused(tmp_path: Path) -> None:
    other = FakeRunner()
    other.host = {**other.host, "cpu": "another"}
    with pytest.raises(TuningError, match="machines with different CPUs: another, fake"):
        runners = [FakeRunner(), other]
        database = Database(tmp_path / "db.jsonl")
        Tuner(Counter([TASK]), database, runners, FakeBuilder(tmp_path))  # pyright: ignore[reportArgumentType]


def test_a_lost_machine_ends_the_run_with_what_was_measured(tmp_path: Path) -> None:
    class Lost(FakeRunner):
        def measure(self, job):
            if len(self.jobs) == 5:
                raise TuningError("the RPC server does not answer")
            return super().measure(job)

    path = tmp_path / "db.jsonl"
    with pytest.raises(TuningError, match="does not answer"):
        make_tuner(path, tmp_path / "work", Counter([TASK]), runner=Lost()).run(20)
    assert Database(path).records


KILLS = 20


def test_killed_at_any_moment_no_record_is_lost(tmp_path: Path, processes) -> None:
    """kill -9 at random moments: all that was measured is there but what was in flight, nothing twice."""
    moments = random.Random(0)
    kills = runs = killed_here = 0
    for _ in range(10 * KILLS):
        # A run that came to its end gives way to one with a database of its own: fast machines are killed as often.
        folder = tmp_path / str(runs)
        path, log = folder / "db.jsonl", folder / "work" / "measured.log"
        folder.mkdir(exist_ok=True)
        arguments = (str(path), str(folder / "work"), 300)
        process = processes.Process(target=tune_in_a_process, args=arguments)
        process.start()
        process.join(moments.uniform(0.01, 0.4))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills, killed_here = kills + 1, killed_here + 1
        reports: list[str] = []
        found = Database(path, reports.append).records
        assert not reports
        lines = path.read_text().splitlines() if path.exists() else []
        assert len(lines) == len({r.config for r in found}) == len(found)
        measured = {line for line in log.read_text().splitlines()} if log.exists() else set()
        assert len(measured) - len(found) <= killed_here
        if kills == KILLS:
            break
        if process.exitcode == 0:
            runs, killed_here = runs + 1, 0
    assert kills == KILLS
