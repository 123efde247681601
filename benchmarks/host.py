"""What a record must say about where and with what it was measured."""

import os
import platform
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from lowgemm import targets
from lowgemm.targets import peak

_PACKAGES = ("lowgemm", "apache-tvm", "numpy", "onnx", "onnxruntime", "openvino", "torch")


def pin(threads: int) -> None:
    """Keep this process, and all threads it will start, on as many CPUs as it uses threads."""
    available = sorted(os.sched_getaffinity(0))
    if threads > len(available):
        raise SystemExit(f"--threads {threads}: only {len(available)} CPUs are available")
    os.sched_setaffinity(0, set(available[:threads]))


def describe() -> dict[str, Any]:
    """Name, date, CPU, features, peaks (measured now), versions and commit, ready for JSON."""
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
        "dot_gops": peak.measure_dot_rates(target.level),
        "read_gb_per_s": peak.measure_read_rates(),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
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


def _commit() -> str:
    """The commit measured, with "+" behind it if files of the package differ from it."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", "lowgemm") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
