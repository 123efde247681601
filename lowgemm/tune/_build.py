"""Candidates as libraries: compiled in processes of their own, several at a time."""

import itertools
import os
import queue
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm import artifact, codegen, lower
from lowgemm.errors import TuningError
from lowgemm.graph import Graph
from lowgemm.schedules import (
    KernelTask,
    config_from_json,
    config_to_json,
    task_from_json,
    task_to_json,
)
from lowgemm.targets import CpuTarget
from lowgemm.tune._problem import Problem, problem, task_seed
from lowgemm.tune._worker import Json, Worker, WorkerFailure, serve

# What compiling takes is a fraction of a second; LLVM does not take longer than this on what it can compile.
_TIMEOUT = 60.0


class Builder:
    """Compiles candidates in `jobs` processes. `folder` is where everything goes."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder = folder
        self._runtime = folder / "runtime"
        self._runtime.mkdir()
        artifact.compile_runtime(self._runtime)
        self._workers = [Worker("lowgemm.tune._build") for _ in range(jobs)]
        self._numbers = itertools.count()

    def build(self, task: KernelTask, configs: Sequence[Any]) -> list[Path | str]:
        """The library of each configuration, or why there is none; in the order of `configs`."""
        results: list[Path | str] = [""] * len(configs)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(configs)):
            waiting.put(index)

        def work(worker: Worker) -> None:
            while True:
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                results[index] = self._build(worker, task, configs[index])

        threads = [threading.Thread(target=work, args=(worker,)) for worker in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def data(self, task: KernelTask) -> Path:
        """A file of the task's inputs (`in_NAME`) and what its kernel must give (`expected`)."""
        path = self._folder / f"{task_seed(task):08x}.npz"
        if not path.exists():
            made = problem(task)
            arrays: dict[str, Any] = {f"in_{name}": value for name, value in made.inputs.items()}
            np.savez(path, expected=made.expected, **arrays)
        return path

    def model(
        self, graph: Graph, level: CpuTarget, threads: int, configs: dict[tuple, Any]
    ) -> tuple[Path, list[KernelTask | None]]:
        """The library of a whole model, and the task of each of its steps."""
        program = lower.lower(graph.copy(), level, threads, configs)
        variant = codegen.generate(program, level)
        path = self._folder / f"model-{next(self._numbers)}.so"
        plan = artifact.Plan("model", *codegen.ports(graph), (variant,))
        artifact.build(plan, path, runtime=self._runtime)
        return path, [call.task for call in program.calls]

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def _build(self, worker: Worker, task: KernelTask, config: Any) -> Path | str:
        path = self._folder / f"candidate-{next(self._numbers)}.so"
        request = {
            "task": task_to_json(task),
            "config": config_to_json(config),
            "path": str(path),
            "runtime": str(self._runtime),
        }
        try:
            answer = worker.call(request, _TIMEOUT)
        except WorkerFailure as failure:
            return f"compiling: {failure}"
        return path if answer["failure"] is None else f"compiling: {answer['failure']}"


def build(task: KernelTask, config: Any, path: Path, runtime: Path | None = None) -> None:
    """Write the library that computes `task` with `config` alone."""
    made = _problem(task)
    level = task.target.summing(0)
    program = lower.lower(made.graph.copy(), level, task.threads, {task.key: config})
    found = {call.task.key for call in program.calls if call.task is not None}
    if found != {task.key}:
        raise TuningError(f"{task} is lowered as another task; take it from a model")
    variant = codegen.generate(program, task.target)
    plan = artifact.Plan("task", *codegen.ports(made.graph), (variant,))
    artifact.build(plan, path, runtime=runtime)


@lru_cache(maxsize=4)
def _problem(task: KernelTask) -> Problem:
    return problem(task)


def _answer(request: Json) -> Json:
    task = task_from_json(request["task"])
    try:
        config = config_from_json(task, request["config"])
        build(task, config, Path(request["path"]), Path(request["runtime"]))
    except Exception as error:  # of any part of TVM: it is the candidate's failure
        lines = str(error).strip().splitlines() or ["no message"]
        return {"failure": f"{type(error).__name__}: {lines[-1][:200]}"}
    return {"failure": None}


def default_jobs() -> int:
    """As many as there are CPUs to use."""
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    serve(_answer)
