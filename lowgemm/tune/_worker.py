"""Processes that do what may crash or hang: they take requests as JSON lines, one at a time, and answer each."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

Json = dict[str, Any]


class WorkerFailure(Exception):
    """A request got no answer: its message says why (the time limit, the signal that ended the process)."""


class Worker:
    """A process that runs `python -m module`, whose main calls `serve`. It starts when it is needed, and again after
    it has died."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._read = b""

    def call(self, request: Json, timeout: float) -> Json:
        """The answer to `request`.

        Raises:
            WorkerFailure: there is none within `timeout` seconds, or the process ended.
        """
        process = self._started()
        deadline = time.monotonic() + timeout
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise WorkerFailure(self._end()) from None
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, left))
            if not ready:
                self.close()
                raise WorkerFailure(f"no result within {timeout:g} s")
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                raise WorkerFailure(self._end())
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process, self._read = None, b""
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the tuner, which ends its workers in order
            )
        return self._process

    def _end(self) -> str:
        """Clear up after a process that has ended; why it did."""
        assert self._process is not None and self._errors is not None
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code < 0:
            return f"the process was ended by {signal_name(-code)}"
        return f"the process ended with status {code}: {lines[-1] if lines else 'no message'}"


def signal_name(number: int) -> str:
    """SIGSEGV and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def serve(answer: Callable[[Json], Json]) -> None:
    """Answer requests until there are no more: the main loop of a worker."""
    # What libraries print must not get between the answers.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        results.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        results.flush()
