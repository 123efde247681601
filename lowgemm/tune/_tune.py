"""`lowgemm.tune`: a model or a list of shapes in, a database of configurations out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowgemm import targets
from lowgemm.errors import InputError, TargetError, TuningError

if TYPE_CHECKING:
    import numpy as np

    from lowgemm.targets import CpuTarget
    from lowgemm.tune._measure import Runner
    from lowgemm.tune._tuner import Progress, TaskResult


def tune(
    model: str | os.PathLike[str] | None = None,
    *,
    tuning_db: str | os.PathLike[str],
    shapes_file: str | os.PathLike[str] | None = None,
    target: str = "host",
    trials: int = 300,
    threads: int | None = None,
    calibration: dict[str, np.ndarray] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    rpc: str | None = None,
    key: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> list[TaskResult]:
    """Search for the fastest configuration of each distinct kernel, by measuring them.

    Of a model, what was found counts in the end only if it is faster inside the model, too.

    Args:
        model: an ONNX model, as `lowgemm.compile` takes it, with `calibration` and `shapes`.
        tuning_db: the database, a file of JSON lines. What it holds counts, and what is measured is added at once.
        shapes_file: a list of kernels instead of a model, see `lowgemm tune --help`.
        target: "host", or level names separated by commas, which the measuring machine must run.
        trials: measurements of all tasks together, those in the database counted.
        threads: the threads that a kernel has, the CPUs of this machine by default. The compiler finds configurations
            for the number of threads that it compiles for.
        seed: of the search. The same seed and database give the same order of trials.
        rpc, key: `HOST:PORT` of a TVM RPC tracker and the name of the servers to measure on, see `lowgemm rpc`.
        progress: called after each trial.
        report: called with what is wrong with lines of the database.

    Returns:
        What was found for each task, the one with the most time first.

    Raises:
        ModelError, CalibrationError, TargetError, InputError, TuningError: the argument concerned does not fit.
    """
    if (model is None) == (shapes_file is None):
        raise InputError("tune a model or a file of shapes, one of them")
    if trials < 1:
        raise InputError(f"trials must be at least 1, not {trials}")
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    if (rpc is None) != (key is None):
        raise InputError("measuring on other machines takes both rpc (HOST:PORT) and key (NAME)")
    levels = targets.parse(target)
    folder = Path(tuning_db).absolute().parent
    if not folder.is_dir():
        raise TuningError(f'folder "{folder}" of the tuning database does not exist')
    _need_xgboost()
    if rpc is None:
        check_local(levels)
    from lowgemm import passes
    from lowgemm.frontend.quantize import load_graph
    from lowgemm.tune._build import Builder, default_jobs
    from lowgemm.tune._confirm import confirm
    from lowgemm.tune._database import Database
    from lowgemm.tune._extract import tasks_of, tasks_of_shapes
    from lowgemm.tune._tuner import Tuner

    database = Database(tuning_db, report)
    count = threads or len(os.sched_getaffinity(0))
    runners = _runners(rpc, key, levels)
    try:
        graph = None
        if model is None:
            tasks = tasks_of_shapes(Path(shapes_file or ""), levels, count)
        else:
            graph = passes.fuse_quantized(load_graph(model, calibration, shapes))
            tasks = tasks_of(graph, levels, count)
            if not tasks:
                reason = f"{model} has no quantized convolution or product to tune"
                if calibration is None:
                    reason += (
                        "; a float model takes samples (--calibrate) to become a quantized one"
                    )
                raise TuningError(reason)
        with tempfile.TemporaryDirectory(prefix="lowgemm-tune-") as scratch:
            builder = Builder(Path(scratch), default_jobs())
            try:
                tuner = Tuner(tasks, database, runners, builder, seed)
                tuner.run(trials, progress)
                if graph is not None:
                    for level in levels:
                        states = tuner.states()
                        confirm(graph, level, count, states, database, runners[0], builder)
                return tuner.results()
            finally:
                builder.close()
    finally:
        for runner in runners:
            runner.close()


def load_configs(path: str | os.PathLike[str]) -> dict[tuple, Any]:
    """The best configuration of each task in a database, by `KernelTask.key`, as lowering takes them.

    This CPU's measurements count first. Lines that are damaged, or do not fit this version, are passed over.
    """
    from lowgemm.tune._database import Database, configs_for
    from lowgemm.tune._host import cpu_name

    return configs_for(Database(path).records, cpu_name())


def write_report(path: str | os.PathLike[str], tuning_db: str | os.PathLike[str]) -> None:
    """Write the HTML report of a database.

    Raises:
        TuningError: there is nothing to report, or the file cannot be written.
    """
    from lowgemm.tune._database import Database
    from lowgemm.tune._report import render

    page = render(Database(tuning_db).records, Path(tuning_db).name)
    try:
        Path(path).write_text(page)
    except OSError as error:
        raise TuningError(f"cannot write {path}: {error.strerror}") from error


def check_local(levels: list[CpuTarget]) -> None:
    """Refuse to tune here for what this CPU does not run.

    Raises:
        TargetError: it lacks features of a level.
    """
    for level in levels:
        if missing := level.missing(targets.host_features()):
            raise TargetError(
                f"cannot tune for {level.level} here: this CPU lacks {', '.join(missing)}; "
                "measure on one that has them with --rpc HOST:PORT --key NAME"
            )


def _runners(rpc: str | None, key: str | None, levels: list[CpuTarget]) -> list[Runner]:
    if rpc is None or key is None:
        from lowgemm.tune._measure import LocalRunner

        return [LocalRunner()]
    from lowgemm.tune._rpc import connect

    return list(connect(rpc, key, levels))


def _need_xgboost() -> None:
    from importlib.util import find_spec

    if find_spec("xgboost") is None:
        raise TuningError("tuning needs xgboost: pip install 'lowgemm[tune]'")
