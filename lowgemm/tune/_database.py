"""The tuning database: a file of JSON lines, one a trial, that several tuners may append to at the same time.

A line is written whole, under a lock, and synchronised with the disk before the next trial begins: a tuner that is
killed loses at most the trial in flight. A line that cannot be read is reported and skipped.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lowgemm.errors import TuningError
from lowgemm.schedules import (
    KernelTask,
    config_from_json,
    config_to_json,
    default_config,
    task_from_json,
    task_to_json,
)

SCHEMA = 1

Report = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """One trial: a configuration of a task, measured on a CPU.

    `relative` is its time over that of the configuration which the task's first trial on this CPU measured, by way of
    the incumbents between; `seconds` is its time as it was measured, `noise` the standard error of its ratio to the
    incumbent. `won` says that it beat the incumbent by more than that. A trial that failed has none of these but
    `failure`, the reason. `details` are the times of both, versions, and the rest of the host.
    """

    task: KernelTask
    config: Any
    cpu: str
    seconds: float | None = None
    relative: float | None = None
    noise: float | None = None
    won: bool = False
    failure: str | None = None
    details: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def identity(self) -> tuple:
        """What is measured once only."""
        return (self.task.key, self.config, self.cpu)


class Database:
    """The records of the file at `path`, which need not exist yet.

    `refresh` reads what others appended; `append` writes. What is wrong with a line goes to `report`.
    """

    def __init__(self, path: str | os.PathLike[str], report: Report | None = None) -> None:
        self.path = Path(path)
        self._report = report or (lambda text: None)
        self._offset, self._lines, self._inode = 0, 0, -1
        self._records: dict[tuple, Record] = {}
        if self.path.is_dir():
            raise TuningError(f'tuning database "{self.path}" is a folder; name a file')
        self.refresh()

    @property
    def records(self) -> list[Record]:
        """All records, in the order in which their trials were first written; of repetitions the last."""
        return list(self._records.values())

    def of(self, task: KernelTask, cpu: str) -> list[Record]:
        """The trials of `task` on the CPU `cpu`, in the order in which they were written."""
        key = task.key
        return [r for r in self._records.values() if r.cpu == cpu and r.task.key == key]

    def refresh(self) -> None:
        """Read what was appended since the last time."""
        try:
            with self.path.open("rb") as file:
                self._read_new(file.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise TuningError(f"cannot read {self.path}: {error.strerror}") from error

    def amend(self, record: Record) -> None:
        """Write a record that takes the place of the one of the same trial."""
        self.append(record, again=True)

    def append(self, record: Record, again: bool = False) -> bool:
        """Write a record and wait until the disk has it; False if another tuner recorded the same trial before.

        Raises:
            TuningError: the file cannot be written.
        """
        try:
            with _locked(self.path) as descriptor:
                self._read_new(descriptor)
                if record.identity in self._records and not again:
                    return False
                line = json.dumps(_to_json(record), sort_keys=True).encode() + b"\n"
                end = os.fstat(descriptor).st_size
                if end and os.pread(descriptor, 1, end - 1) != b"\n":
                    line = b"\n" + line  # behind what a killed writer left
                _write_all(descriptor, line)
                os.fsync(descriptor)
                self._read_new(descriptor)
        except OSError as error:
            raise TuningError(f"cannot write {self.path}: {error.strerror}") from error
        return True

    def rewrite(self, keep: Callable[[list[Record]], Iterable[Record]]) -> int:
        """Replace the records by `keep(records)`, all at once; returns how many went.

        Other tuners wait meanwhile, and then go on with the new file.
        """
        try:
            with _locked(self.path) as descriptor:
                self._read_new(descriptor)
                before = self.records
                kept = list(keep(before))
                _replace(self.path, kept)
        except OSError as error:
            raise TuningError(f"cannot write {self.path}: {error.strerror}") from error
        self.refresh()
        return len(before) - len(kept)

    def _read_new(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._offset, self._lines, self._inode = 0, 0, status.st_ino
            self._records.clear()
        data = os.pread(descriptor, status.st_size - self._offset, self._offset)
        whole = data[: data.rfind(b"\n") + 1]  # a line without its end may still be being written
        for line in whole.splitlines():
            self._lines += 1
            if line.strip():
                self._take(line)
        self._offset += len(whole)

    def _take(self, line: bytes) -> None:
        try:
            record = _from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            self._report(f"{self.path}, line {self._lines} is skipped: {reason}")
            return
        self._records[record.identity] = record  # at the place of the first one


def best_records(records: Iterable[Record]) -> list[Record]:
    """The fastest record of each task on each CPU, of those that beat what was known before them."""
    best: dict[tuple, Record] = {}
    for record in records:
        if not record.won or record.relative is None:
            continue
        key = (record.task.key, record.cpu)
        if key not in best or record.relative < (best[key].relative or 0):
            best[key] = record
    return list(best.values())


def configs_for(records: Iterable[Record], cpu: str) -> dict[tuple, Any]:
    """What lowering takes: the best configuration of every task, by its key.

    This CPU's measurements count first; of other CPUs', the one with the largest gain. A task's first configuration
    beat none: today's heuristics may know better, so it is left to them, unless what they choose has failed.
    """
    records = list(records)
    failed = {r.task.key for r in records if r.failure and r.config == default_config(r.task)}
    chosen: dict[tuple, Record] = {}
    for record in best_records(records):
        if (record.relative or 1.0) >= 1.0 and record.task.key not in failed:
            continue
        rank = (record.cpu != cpu, record.relative)
        known = chosen.get(record.task.key)
        if known is None or rank < (known.cpu != cpu, known.relative):
            chosen[record.task.key] = record
    return {key: record.config for key, record in chosen.items()}


def merge(paths: Iterable[Path], output: Path, report: Report | None = None) -> int:
    """Write all records of the databases `paths`, each trial once, to `output`; returns how many there are.

    Of a trial that several hold, the one that is named last counts.
    """
    records: dict[tuple, Record] = {}
    for path in paths:
        if not path.is_file():
            raise TuningError(f"there is no tuning database {path}")
        for record in Database(path, report).records:
            records.pop(record.identity, None)
            records[record.identity] = record
    try:
        _replace(output, records.values())
    except OSError as error:
        raise TuningError(f"cannot write {output}: {error.strerror}") from error
    return len(records)


def prune(records: list[Record]) -> list[Record]:
    """What compiling needs: the best record of each task on each CPU, and the first, which it is relative to."""
    keep = {r.identity for r in best_records(records)}
    seen: set[tuple] = set()
    for record in records:
        key = (record.task.key, record.cpu)
        if record.won and key not in seen:
            seen.add(key)
            keep.add(record.identity)
    return [record for record in records if record.identity in keep]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the file at `path`, made if it is missing, that nobody else has locked."""
    while True:
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever rewrote it meanwhile left another file at this name.
            if _is_at(descriptor, path):
                if fresh:
                    _sync_folder(path.parent)
                yield descriptor
                return
        finally:
            os.close(descriptor)  # and unlocks it


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found, own = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _replace(path: Path, records: Iterable[Record]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for record in records:
                file.write(json.dumps(_to_json(record), sort_keys=True).encode() + b"\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
        _sync_folder(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_json(record: Record) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "task": task_to_json(record.task),
        "config": config_to_json(record.config),
        "cpu": record.cpu,
        "seconds": record.seconds,
        "relative": record.relative,
        "noise": record.noise,
        "won": record.won,
        "failure": record.failure,
        **record.details,
    }


_OWN = ("schema", "task", "config", "cpu", "seconds", "relative", "noise", "won", "failure")


def _from_json(data: dict[str, Any]) -> Record:
    if data["schema"] > SCHEMA:
        raise ValueError(
            f"it has schema {data['schema']}, this lowgemm reads up to {SCHEMA}: install a newer one"
        )
    task = task_from_json(data["task"])
    record = Record(
        task,
        config_from_json(task, data["config"]),
        str(data["cpu"]),
        won=bool(data["won"]),
        failure=data["failure"],
        details={key: value for key, value in data.items() if key not in _OWN},
    )
    if record.failure is not None:
        return record
    seconds, relative, noise = (float(data[key]) for key in ("seconds", "relative", "noise"))
    if not (0 < seconds < float("inf") and 0 < relative < float("inf") and noise >= 0):
        raise ValueError("its times are no times")
    return replace(record, seconds=seconds, relative=relative, noise=noise)
