"""A tuner without compiler and clock: candidates are files that name their knobs, and times a function of these."""

import json
import math
import os
import zlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowgemm.packing import ConvShape
from lowgemm.schedules import KernelTask, config_space
from lowgemm.targets import LEVELS
from lowgemm.tune._database import Database, Record
from lowgemm.tune._measure import Job, Outcome
from lowgemm.tune._tuner import Tuner

CPU = "fake (0-0-0)"


def conv_task(channels: int = 64, level: str = "avx2", threads: int = 1) -> KernelTask:
    """A 3x3 convolution of some hundred configurations."""
    shape = ConvShape(1, 14, 14, channels, 64, (3, 3), padding=(1, 1, 1, 1))
    return KernelTask("qconv2d", shape, "uint8", "uint8", None, LEVELS[level], threads)


def depthwise_task() -> KernelTask:
    """A small space."""
    shape = ConvShape(1, 14, 14, 64, 64, (3, 3), padding=(1, 1, 1, 1), groups=64)
    return KernelTask("qdepthwise2d", shape, "uint8", "uint8", None, LEVELS["avx2"], 1)


def seconds(knobs: dict[str, Any]) -> float:
    """A landscape with one valley, and a little that is each configuration's own."""
    away = sum(abs(math.log2(v / 3)) for v in knobs.values() if isinstance(v, int) and v > 0)
    own = zlib.crc32(json.dumps(knobs, sort_keys=True).encode()) % 1000 / 1000
    return 1e-4 * (1 + 0.1 * away + 0.02 * own)


class FakeBuilder:
    """Writes a candidate's knobs where a library would be. Configurations in `broken` do not compile."""

    def __init__(self, folder: Path, broken: dict[Any, str] | None = None) -> None:
        self.folder, self.broken, self.count = folder, broken or {}, 0

    def build(self, task: KernelTask, configs: list[Any]) -> list[Path | str]:
        found: list[Path | str] = []
        for config in configs:
            if config in self.broken:
                found.append(self.broken[config])
                continue
            self.count += 1
            path = self.folder / f"candidate-{os.getpid()}-{self.count}.json"
            path.write_text(json.dumps(asdict(config)))
            found.append(path)
        return found

    def data(self, task: KernelTask) -> Path:
        return self.folder / "data"

    def close(self) -> None:
        pass


class FakeRunner:
    """Knows the time of every configuration. `failures` are reasons by configuration; `noise` every ratio's error.

    `jobs` are the knobs measured so far, and a line of the file `log` each, written before the outcome is told.
    """

    def __init__(
        self, failures: dict[Any, str] | None = None, noise: float = 0.0, log: Path | None = None
    ) -> None:
        self.host = {"cpu": CPU, "node": "here", "features": ["avx2"]}
        self.failures = {json.dumps(asdict(c)): reason for c, reason in (failures or {}).items()}
        self.noise, self.log = noise, log
        self.jobs: list[dict[str, Any]] = []

    def compare_models(self, models: tuple[Path, Path], threads: int, rounds: int) -> Any:
        raise AssertionError("no model is compared with kernels that do not exist")

    def measure(self, job: Job) -> Outcome:
        text = job.candidate.read_text()
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{text}\n")
        own = json.loads(text)
        self.jobs.append(own)
        if text in self.failures:
            return Outcome(self.failures[text])
        other = json.loads(job.incumbent.read_text()) if job.incumbent else own
        times = (seconds(own),) * 3, (seconds(other),) * 3
        return Outcome(None, *times, seconds(own) / seconds(other), self.noise)

    def peak(self, level: str) -> float | None:
        return 100.0

    def close(self) -> None:
        pass


def make_tuner(
    database: Path,
    folder: Path,
    tasks: Counter[KernelTask] | None = None,
    seed: int = 0,
    runner: FakeRunner | None = None,
    broken: dict[Any, str] | None = None,
) -> Tuner:
    """A tuner whose work is fake and whose search and database are real."""
    folder.mkdir(parents=True, exist_ok=True)
    builder: Any = FakeBuilder(folder, broken)
    tasks = tasks or Counter([conv_task(), depthwise_task()])
    return Tuner(tasks, Database(database), [runner or FakeRunner()], builder, seed)


def tune_in_a_process(database: str, folder: str, trials: int) -> None:
    """What a test starts in a process of its own, and kills."""
    runner = FakeRunner(log=Path(folder) / "measured.log")
    make_tuner(Path(database), Path(folder), runner=runner).run(trials)


def append_in_a_process(path: str, first: int, count: int) -> None:
    """Write `count` records of `conv_task`, from configuration `first` of its space on."""
    database, task = Database(path), conv_task()
    for config in config_space(task)[first : first + count]:
        database.append(Record(task, config, CPU, 1e-4, 1.0, 0.01, True))
