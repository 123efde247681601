"""Where and with what something is measured: what a record must say, and what the machine can reach."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from lowgemm import targets
from lowgemm.bench.timing import cache_flusher
from lowgemm.errors import BenchError
from lowgemm.targets import peak

_PACKAGES = (
    "lowgemm",
    "apache-tvm",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "torch",
    "onednn-cpu-gomp",
)
STATES = ("warm", "flushed")
_GAUGED = ("dot_gops", "fma_gops")


def pin(threads: int) -> None:
    """Keep this process, and all threads it will start, on as many CPUs as it uses threads.

    Raises:
        BenchError: there are not as many.
    """
    available = sorted(os.sched_getaffinity(0))
    if threads > len(available):
        raise BenchError(f"--threads {threads}: only {len(available)} CPUs are available")
    os.sched_setaffinity(0, set(available[:threads]))


@dataclass(frozen=True)
class Setting:
    """How a run measures.

    Attributes:
        threads: of every contestant; the process is pinned to as many CPUs.
        seconds: measuring time of one row.
        state: what the caches hold before each run: "warm", the last run's data, or "flushed", nothing of it.
        peaks: as `measure_peaks` gives them, of `threads` threads.
        caches: bytes of each cache, "L1" first.
        flush: for the state "flushed", what empties the caches.
        gauges: runs at the rates of `peaks`, "dot_gops" and "fma_gops", to be timed in the same rounds as a row.
    """

    threads: int
    seconds: float
    state: str
    peaks: Mapping[str, Mapping[str, float]]
    caches: Mapping[str, int]
    flush: Callable[[], object] | None = field(default=None, compare=False)
    gauges: Mapping[str, peak.DotRuns] = field(default_factory=dict, compare=False)

    def peak_gops(self, kind: str) -> float:
        """The highest rate of `kind`, "dot_gops" or "fma_gops".

        That of dot products is the best of all the instruction sequences of the level. Each is exact for some weights:
        vpmaddubsw for those of which no pair can saturate, and the layers of benchmarks have such weights.
        """
        return max(self.peaks[kind].values())

    def roofline_us(self, kind: str, macs: int, moved: int) -> float:
        """The least time for `macs` multiply-accumulates and `moved` bytes, each read or written once.

        As many bytes as fit come from each cache, the smallest first, and the rest from memory, as all do in the state
        "flushed"; each at the rate of plain reads from there.
        """
        rates, rest, moving = self.peaks["read_gb_per_s"], moved, 0.0
        for name, size in self.caches.items() if self.state == "warm" else ():
            part = min(rest, size * (self.threads if name in peak.OWN_CACHES else 1))
            moving += part / rates[name]
            rest -= part
        moving += rest / rates["memory"]
        return 1e-3 * max(2 * macs / self.peak_gops(kind), moving)


def prepare(
    threads: int, seconds: float, state: str, root: Path | None = None
) -> tuple[dict[str, Any], Setting]:
    """Pin this process, measure the machine; return the host's description for the record, and the setting.

    Args:
        root: a clone of lowgemm's repository, whose commit is the one measured.

    Raises:
        BenchError: there are fewer CPUs than threads.
        TargetError: there is no C compiler, or this CPU runs no level.
    """
    pin(threads)
    described = describe(threads, root)
    caches = described["caches"]
    flush = cache_flusher(max(caches.values(), default=0)) if state == "flushed" else None
    peaks = described["peaks"][str(threads)]
    fastest = {kind: max(peaks[kind], key=lambda name: peaks[kind][name]) for kind in _GAUGED}
    gauges = {kind: peak.DotRuns(name, threads) for kind, name in fastest.items()}
    return described, Setting(threads, seconds, state, peaks, caches, flush, gauges)


def describe(threads: int, root: Path | None = None) -> dict[str, Any]:
    """Name, date, CPU, features, peaks measured now, versions and commit, for JSON."""
    target = targets.host()
    known = {name for level in targets.LEVELS.values() for name in level.features}
    return {
        "host": socket.gethostname(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "level": target.level,
        "features": sorted(known & targets.host_features()),
        "caches": peak.cache_sizes(),
        "peaks": {str(count): measure_peaks(target.level, count) for count in {1, threads}},
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit(root),
    }


def measure_peaks(level: str, threads: int) -> dict[str, dict[str, float]]:
    """Rates of `threads` cores together: products of `level`; reads and copies in each cache and in memory."""
    return {
        "dot_gops": peak.measure_dot_rates(level, threads),
        "fma_gops": peak.measure_fma_rates(level, threads),
        "read_gb_per_s": peak.measure_read_rates(threads),
        "copy_gb_per_s": peak.measure_copy_rates(threads),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit(root: Path | None) -> str | None:
    """The last commit that changed what is measured or how, with "+" behind it if files differ from it."""
    if root is None:
        return None
    measured = ["--", "lowgemm", "benchmarks", ":(exclude)benchmarks/records"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments, *measured]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain")
        return git("log", "-1", "--format=%h", "--abbrev=12") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
