"""The thread pool alone, under a stress test in C."""

import subprocess
from pathlib import Path

from lowgemm.artifact.build import find_compiler

import libraries

_SECONDS = 60  # it takes a third of one; a lost wake-up hangs for ever


def test_pool_under_stress(tmp_path: Path) -> None:
    sources = [Path(__file__).with_name("pool_stress.c")]
    sources += [libraries.CSRC / name for name in ("threads.c", "memory.c")]
    flags = ["-O2", "-std=gnu11", f"-I{libraries.CSRC}", "-pthread", "-o", "stress"]
    subprocess.run([*find_compiler(), *flags, *map(str, sources)], cwd=tmp_path, check=True)
    done = subprocess.run(
        ["./stress"], cwd=tmp_path, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
