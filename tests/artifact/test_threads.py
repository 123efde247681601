"""The thread pool alone, under a stress test in C."""

import subprocess
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(("written", "ends"), [(9, False), (10, True), (73, True)])
def test_guards_find_what_is_written_behind_a_buffer(
    written: int, ends: bool, tmp_path: Path
) -> None:
    """As tests of operators build the runtime: the process ends when the buffer, of ten bytes, is freed."""
    program = f"""
        #include "lowgemm_internal.h"
        int main(void) {{
          lg_stack stack = {{0}};
          volatile unsigned char *block = lg_stack_push(&stack, 10);
          block[{written}] = 1;
          lg_stack_pop(&stack, (void *)block);
          return 0;
        }}"""
    (tmp_path / "guard.c").write_text(program)
    flags = ["-std=gnu11", "-DLG_GUARD", f"-I{libraries.CSRC}", "-o", "guard"]
    sources = ["guard.c", str(libraries.CSRC / "memory.c")]
    subprocess.run([*find_compiler(), *flags, *sources], cwd=tmp_path, check=True)
    done = subprocess.run(["./guard"], cwd=tmp_path, capture_output=True, text=True, check=False)
    message = "a kernel wrote past the end of a temporary buffer\n"
    assert (done.returncode != 0, done.stderr) == (ends, message * ends)
