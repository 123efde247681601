"""The process that measures: every job in a child of its own, which may crash, hang or take too much memory."""

import ctypes
import functools
import json
import math
import os
import resource
import select
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from lowgemm.errors import LowgemmError
from lowgemm.runtime import load
from lowgemm.targets.peak import cache_sizes
from lowgemm.tune._worker import Json, serve, signal_name

_POLL_SECONDS = 0.01
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG = 1
# One turn of a kernel is so long, or so many runs at least; a turn's time is that of its fastest run, which other load
# on the machine moves least.
_TURN_SECONDS = 0.003
_LEAST_RUNS = 3
_MOST_RUNS = 200
_LEAST_ROUNDS = 3
# After these rounds, whoever is slower by so much in each of them has lost.
_HOPELESS = 1.08


def answer(job: Json) -> Json:
    """Do `job` in a child process; {"failure": reason} if it does not end well.

    Keys of the job: `candidate` and `incumbent` (paths of libraries; no incumbent: the candidate is measured against
    itself), `data` (from `Builder.data`), `threads`, `rounds` (at most), `seconds` and `bytes` (limits). Or, instead of
    the first three, `models`: two libraries of whole models, whose steps are timed in turns.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _be_the_child(job, write)  # does not return
    os.close(write)
    try:
        return _supervise(child, read, job["seconds"], job["bytes"])
    finally:
        os.close(read)


def _supervise(child: int, read: int, seconds: float, limit: int) -> Json:
    deadline = time.monotonic() + seconds
    base = _resident(child)
    data, failure, ended = b"", None, False
    while not ended:
        ready, _, _ = select.select([read], [], [], _POLL_SECONDS)
        if ready:
            part = os.read(read, 1 << 16)
            data, ended = data + part, not part
        if failure is None and _resident(child) - base > limit:
            failure = f"memory: more than {limit >> 20} MiB"
        if failure is None and time.monotonic() > deadline:
            failure = f"time: no result within {seconds:g} s"
        if failure is not None:
            os.kill(child, signal.SIGKILL)
            ended = True
    _, status = os.waitpid(child, 0)
    if failure is None and os.WIFSIGNALED(status):
        failure = f"crash: {signal_name(os.WTERMSIG(status))}"
    if failure is None and not data:
        failure = f"crash: exit status {os.waitstatus_to_exitcode(status)}"
    return {"failure": failure} if failure else json.loads(data)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0  # it has ended


def _be_the_child(job: Json, write: int) -> None:
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Against what comes faster than the supervisor looks.
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        ceiling = virtual + 4 * job["bytes"] + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        try:
            result = _compare_models(job) if "models" in job else _measure(job)
        except (LowgemmError, MemoryError) as error:
            result = {"failure": f"running: {' '.join(str(error).split()) or 'out of memory'}"}
        os.write(write, json.dumps(result).encode())
        status = 0
    finally:
        os._exit(status)


class _Timed:
    """A library whose kernels are timed."""

    def __init__(self, path: str, threads: int, inputs: dict[str, np.ndarray]) -> None:
        net = load(path, threads=threads)
        (variant,) = net.manifest["variants"]
        self._multiplies = [step["macs"] > 0 for step in variant["steps"]]
        self._net = net.bind(inputs)
        self._runs = 1

    def outputs(self) -> list[np.ndarray]:
        """What it computes."""
        return [*self._net().values()]

    def calibrate(self, seconds: float) -> None:
        """Let turns take about so many seconds."""
        start = time.perf_counter()
        self._run()
        once = time.perf_counter() - start
        self._runs = int(min(max(seconds / once, _LEAST_RUNS), _MOST_RUNS))

    def turn(self) -> float:
        """Seconds of the fastest of some runs."""
        return min(self._run() for _ in range(self._runs))

    def _run(self) -> float:
        """Seconds of the kernels that multiply alone: what moves data around them in this model of one operator is not
        there inside another. Inputs have just been written, weights are not in the second cache, as inside a model."""
        _flush()
        seconds = self._net.step_seconds()
        return sum(s for s, counts in zip(seconds, self._multiplies, strict=True) if counts)


def _flush() -> None:
    np.add(_buffer(), 1, out=_buffer())


@functools.cache
def _buffer() -> np.ndarray:
    """As large as the second cache, or as a common one: writing it takes less time than idle workers stay awake."""
    return np.zeros(cache_sizes().get("L2", 1 << 20), np.uint8)


def _measure(job: Json) -> Json:
    with np.load(job["data"]) as data:
        inputs = {name[3:]: data[name] for name in data.files if name.startswith("in_")}
        expected = data["expected"]
    candidate = _Timed(job["candidate"], job["threads"], inputs)
    (found,) = candidate.outputs()
    if found.dtype != expected.dtype or not np.array_equal(found, expected):
        wrong = np.count_nonzero(found != expected)
        return {"failure": f"wrong result: {wrong} of {expected.size} values"}
    incumbent = candidate
    if job["incumbent"]:
        incumbent = _Timed(job["incumbent"], job["threads"], inputs)
    nets = (incumbent, candidate)
    for net in nets:
        net.calibrate(_TURN_SECONDS)
    taken: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    for _ in range(job["rounds"]):
        for net, times in zip(nets, taken, strict=True):
            times.append(net.turn())
        ratios.append(taken[1][-1] / taken[0][-1])
        if len(ratios) >= _LEAST_ROUNDS and min(ratios) > _HOPELESS:
            break
    return {
        "failure": None,
        "incumbent": taken[0],
        "candidate": taken[1],
        **compare(ratios),
    }


def _compare_models(job: Json) -> Json:
    """The fastest seconds of every step in each round, of both models; data as good as any, nothing flushed."""
    nets = [load(path, threads=job["threads"]) for path in job["models"]]
    rng = np.random.default_rng(0)
    inputs = {
        port.name: rng.integers(0, 100, port.shape).astype(port.dtype) for port in nets[0].inputs
    }
    bound = [net.bind(inputs) for net in nets]
    steps: list[list[list[float]]] = [[], []]
    for number in range(job["rounds"]):
        for index in (0, 1) if number % 2 else (1, 0):
            runs = [bound[index].step_seconds() for _ in range(_LEAST_RUNS)]
            steps[index].append([min(step) for step in zip(*runs, strict=True)])
    return {"failure": None, "steps": steps}


def compare(ratios: list[float]) -> dict[str, Any]:
    """`ratio`: the median of the rounds' ratios; `noise`: its standard error.

    The error is that of a median of normal values whose deviation their median deviation gives: outliers, which a
    disturbed machine makes, count little.
    """
    logs = [math.log(r) for r in ratios]
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(v - middle) for v in logs)
    return {"ratio": math.exp(middle), "noise": 1.2533 * deviation / math.sqrt(len(logs))}


if __name__ == "__main__":
    serve(answer)
