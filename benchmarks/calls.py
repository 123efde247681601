"""What calling an operator costs beside its kernel: each call, the first one with a cache on disk, and without."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_RUNS = 20_000
_PROCESSES = 7

# In a process of its own: the milliseconds that the first call of a 128x512x512 product takes, tvm loaded or not.
_FIRST = """
import sys, time
import numpy as np
from lowgemm import ops
if "tvm" in sys.argv:
    import lowgemm.schedules
b, a = np.ones((512, 512), np.int8), np.ones((128, 512), np.uint8)
start = time.perf_counter()
product = ops.pack_gemm(b, output=ops.Output("uint8", multiplier=1e-4))
packed = time.perf_counter()
product(a)
print((time.perf_counter() - packed) * 1e3)
"""


def measure_first() -> dict[str, float]:
    """Medians, milliseconds of a process's first call: compiled, and loaded from the disk."""
    with tempfile.TemporaryDirectory(prefix="lowgemm-calls-") as folder:
        caches = [os.path.join(folder, str(number)) for number in range(_PROCESSES)]
        compiled = [_first(cache, "tvm") for cache in caches]
        loaded = [_first(cache) for cache in caches]
    return {"compile_ms": statistics.median(compiled), "load_ms": statistics.median(loaded)}


def measure_calls() -> dict[str, float]:
    """Medians, microseconds of a call on one thread."""
    from lowgemm import ops

    ops.set_num_threads(1)
    b, a = np.ones((4, 16), np.int8), np.ones((1, 4), np.uint8)
    product = ops.pack_gemm(b, output=ops.Output("uint8", multiplier=1.0))
    out = product(a)
    # One row, four products each: the kernel itself takes nanoseconds.
    bound, fresh = product.bind(a, out), lambda: product(a)
    return {"bound_us": _median(bound), "fresh_us": _median(fresh)}


def measure_regions() -> dict[str, float]:
    """Median and 90th percentile, microseconds of a parallel region without work, on all CPUs.

    Regions follow one another at once, as those of a model's layers do: workers still spin.
    """
    from benchmarks.native_loops import empty_regions
    from lowgemm import ops

    empty_regions(_RUNS)
    median, p90 = np.percentile(empty_regions(_RUNS), (50, 90)) * 1e6
    threads = ops.get_num_threads()
    return {"region_threads": threads, "region_us": float(median), "region_p90_us": float(p90)}


def render(found: dict[str, Any]) -> str:
    """The figures as lines of text."""
    return "\n".join(
        (
            f"call on bound buffers     {found['bound_us']:8.2f} us",
            f"call on fresh arrays      {found['fresh_us']:8.2f} us",
            f"empty parallel region     {found['region_us']:8.2f} us on {found['region_threads']} threads",
            f"first call, compiling     {found['compile_ms']:8.1f} ms, TVM loaded",
            f"first call, from the disk {found['load_ms']:8.1f} ms",
        )
    )


def to_json(host: dict[str, Any], found: dict[str, Any]) -> str:
    """A record."""
    return json.dumps({"host": host, "calls": found}, indent=1) + "\n"


def _median(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(_RUNS):
        start = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - start)
    return statistics.median(samples) / 1e3


def _first(cache: str, *arguments: str) -> float:
    environment = {**os.environ, "LOWGEMM_CACHE": cache}
    command = [sys.executable, "-c", _FIRST, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)
