"""Kernels are tuned on this CPU, and a model that is compiled with the database uses what was found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lowgemm
from benchmarks.layer_model import to_onnx
from benchmarks.layers import Layer
from lowgemm import schedules
from lowgemm.demo import MODEL_PATH
from lowgemm.errors import TuningError
from lowgemm.packing import ConvShape
from lowgemm.tune import load_configs
from lowgemm.tune._build import Builder
from lowgemm.tune._confirm import confirm, seconds_of
from lowgemm.tune._database import Database, Record
from lowgemm.tune._host import cpu_name
from lowgemm.tune._measure import LocalRunner
from lowgemm.tune._problem import problem
from lowgemm.tune._search import TaskState

from fake_tuning import conv_task

# One kernel computes it, whatever its weights.
TASK = replace(conv_task(), shape=ConvShape(1, 14, 14, 64, 64, (5, 5), padding=(2, 2, 2, 2)))
# Of the layers of benchmarks, whose weights' sums fit 16 bits in pairs of words.
FITTING = replace(TASK, target=TASK.target.summing(1, paired=True))


@pytest.mark.slow
@pytest.mark.isa("avx2")
def test_shapes_are_tuned_here(tmp_path: Path) -> None:
    """Through compilers, child processes and clocks: the best of some trials is no slower than the default."""
    shapes, database = tmp_path / "shapes.txt", tmp_path / "db.jsonl"
    shapes.write_text("conv 1 14 14 64 64 kernel=5 pad=2\n")
    arguments = {"shapes_file": shapes, "tuning_db": database, "target": "avx2", "threads": 1}
    (result,) = lowgemm.tune(**arguments, trials=10)
    assert result.task == TASK and result.trials == 10 and result.failures == 0
    assert result.gain >= 1
    records = Database(database).records
    assert records[0].config == schedules.default_config(TASK)
    assert {"versions", "host", "times", "date"} <= {*records[0].details}
    assert load_configs(database) == ({TASK.key: result.config} if result.gain > 1 else {})
    before = database.read_text()
    lowgemm.tune(**arguments, trials=10)
    assert database.read_text() == before, "there are ten trials already"


@pytest.mark.isa("avx2")
def test_a_candidate_that_does_not_compile_has_a_reason(tmp_path: Path) -> None:
    builder = Builder(tmp_path, jobs=1)
    try:
        bad = schedules.ConvConfig(9, 9, 9, 8, 1, "rows", 1)
        found, reason = builder.build(TASK, [schedules.default_config(TASK), bad])
        assert isinstance(found, Path) and found.exists()
        assert isinstance(reason, str) and "compiling: ValueError" in reason
        assert "registers of 16" in reason
    finally:
        builder.close()


@pytest.mark.isa("avx2")
def test_a_model_is_compiled_as_the_database_says(tmp_path: Path) -> None:
    """Other kernels, for the threads that were tuned for alone, and the same result."""
    layer = Layer.parse("layer", "1x64x14x14 -> 64, 5x5 pad 2")
    model, path = tmp_path / "layer.onnx", tmp_path / "db.jsonl"
    onnx.save(to_onnx(layer), model)
    default = schedules.default_config(FITTING)
    chosen = next(c for c in schedules.config_space(FITTING) if c.columns != default.columns)
    database = Database(path)
    database.append(Record(FITTING, default, cpu_name(), 2e-4, 1.0, 0.0, True))
    database.append(Record(FITTING, chosen, cpu_name(), 1e-4, 0.5, 0.0, True))

    def compiled(name: str, **arguments) -> tuple[set[str], np.ndarray]:
        made = lowgemm.compile(model, target="avx2", **arguments)
        kernels = {s.kernel for s in made.plan.variants[0].steps if s.macs}
        net = lowgemm.load(made.export(tmp_path / name), threads=1)
        return kernels, net({"x": layer.data.x})["y"]

    plain_kernels, plain = compiled("plain.so", threads=1)
    tuned_kernels, tuned = compiled("tuned.so", threads=1, tuning_db=path)
    other_kernels, _ = compiled("other.so", threads=2, tuning_db=path)
    tile = f"_{chosen.rows}x{chosen.columns}x{chosen.vectors * chosen.lanes}_"
    assert all(tile in kernel for kernel in tuned_kernels)
    assert not any(tile in kernel for kernel in plain_kernels | other_kernels)
    assert np.array_equal(plain, tuned)


@pytest.mark.isa("avx2")
def test_a_model_lists_its_kernels(tmp_path: Path) -> None:
    """Nothing is measured: the database has all trials that were asked for."""
    layer = Layer.parse("layer", "1x64x14x14 -> 64, 5x5 pad 2")
    onnx.save(to_onnx(layer), tmp_path / "layer.onnx")
    Database(tmp_path / "db").append(
        Record(FITTING, schedules.default_config(FITTING), cpu_name(), 2e-4, 1.0, 0.0, True)
    )
    (result,) = lowgemm.tune(
        tmp_path / "layer.onnx", tuning_db=tmp_path / "db", target="avx2", threads=1, trials=1
    )
    assert (result.task, result.count, result.trials) == (FITTING, 1, 1)


def test_a_float_model_takes_samples(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="to tune; a float model takes samples"):
        lowgemm.tune(MODEL_PATH, tuning_db=tmp_path / "db", target="avx2", threads=1)


class _Scripted:
    """A machine on which the second model's kernels that multiply, and its other steps, take so many times as long; in
    every other process, `scatter` times more of all."""

    def __init__(self, multiplying: float, others: float, scatter: float) -> None:
        self._ratios = {True: multiplying, False: others}
        self._scatter, self._processes = scatter, 0

    def compare_models(self, models, threads, rounds):
        steps = lowgemm.load(models[1]).manifest["variants"][0]["steps"]
        factor = self._scatter if self._processes % 2 else 1.0
        self._processes += 1
        changed = [1e-4 * self._ratios[step["macs"] > 0] * factor for step in steps]
        return [[[1e-4] * len(steps)] * rounds, [changed] * rounds]


@pytest.mark.isa("avx2")
@pytest.mark.parametrize(
    ("ratio", "others", "scatter", "kept"),
    [
        pytest.param(0.9, 1.0, 1.0, True, id="faster"),
        pytest.param(0.9, 1.0, 1.02, True, id="faster-in-any-process"),
        pytest.param(0.95, 0.95, 1.08, False, id="faster-in-some-processes"),
        pytest.param(1.0, 1.0, 1.0, False, id="no-slower"),
        pytest.param(1.2, 1.0, 1.0, False, id="slower"),
        pytest.param(0.9, 1.2, 1.0, False, id="faster-but-others-slower"),
        pytest.param(1.2, 0.5, 1.0, False, id="slower-but-others-faster"),
    ],
)
def test_a_win_counts_if_the_model_is_faster_too(
    tmp_path: Path, ratio: float, others: float, scatter: float, kept: bool
) -> None:
    default = schedules.default_config(TASK)
    first, second = [c for c in schedules.config_space(TASK) if c != default][:2]
    database = Database(tmp_path / "db.jsonl")
    for config, relative in ((default, 1.0), (first, 0.8), (second, 0.6)):
        database.append(Record(TASK, config, cpu_name(), 1e-4, relative, 0.0, True))
    graph, space = problem(TASK).graph, schedules.config_space(TASK)
    builder = Builder(tmp_path, jobs=1)
    machine: Any = _Scripted(ratio, others, scatter)

    def states() -> list[TaskState]:
        return [TaskState(TASK, 1, space, database.of(TASK, cpu_name()))]

    confirm(graph, TASK.target, 1, states(), database, machine, builder)
    assert load_configs(tmp_path / "db.jsonl") == ({TASK.key: second} if kept else {})
    amended = next(r for r in Database(tmp_path / "db.jsonl").records if r.config == second)
    assert amended.won is kept
    assert amended.details["in_model"]["ratio"] == pytest.approx(ratio * scatter**0.5, abs=1e-5)
    machine.compare_models = None  # what has been confirmed, or lost, is not built and timed again
    confirm(graph, TASK.target, 1, states(), database, machine, builder)


@pytest.mark.isa("avx2")
def test_models_are_timed_step_by_step(tmp_path: Path) -> None:
    builder, runner = Builder(tmp_path, jobs=1), LocalRunner()
    try:
        library, tasks = builder.model(problem(TASK).graph, TASK.target, 1, {})
        times = runner.compare_models((library, library), 1, 4)
        assert [len(rounds) for rounds in times] == [4, 4]
        assert all(len(steps) == len(tasks) for rounds in times for steps in rounds)
        own = [[sum(steps) for steps in rounds] for rounds in times]
        assert 0.2 < min(own[1]) / min(own[0]) < 5
        assert seconds_of(TASK.key, [times[0]], tasks)[0][0] <= own[0][0]
        (tmp_path / "bad.so").write_bytes(b"nothing")
        with pytest.raises(TuningError, match=r"the model cannot be timed: .*not a shared library"):
            runner.compare_models((library, tmp_path / "bad.so"), 1, 4)
    finally:
        runner.close()
