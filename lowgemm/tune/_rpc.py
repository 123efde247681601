"""Measuring on other machines, by way of TVM's RPC tracker.

A tracker knows servers by a key; a tuner asks it for every free one and keeps them until it ends. A server is a process
of lowgemm's on the machine to measure on: TVM moves the files and the requests, and the measuring there is that of
`LocalRunner`, so a candidate that crashes costs one trial there, too.

TVM's protocol has neither passwords nor encryption, and who reaches a server runs code on it: both ends bind to the
loopback interface unless told otherwise, and none of it must face a public network.
"""

import json
import multiprocessing
import socket
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lowgemm.errors import InputError, TargetError, TuningError
from lowgemm.targets import CpuTarget
from lowgemm.tune import _host
from lowgemm.tune._measure import Job, LocalRunner, ModelTimes, Outcome, peak_gops

LOOPBACK = "127.0.0.1"
_HOST, _MEASURE, _COMPARE, _PEAK = (
    f"lowgemm.tune.{name}" for name in ("host", "measure", "compare", "peak")
)
_CONNECT_SECONDS = 5.0
_PORTS = 100  # tried from the one that is asked for


class RemoteRunner:
    """A server that a tracker gave, until `close`."""

    def __init__(self, session: Any) -> None:
        self._session: Any = session
        self._files: set[str] = set()
        self.host: dict[str, Any] = json.loads(self._call(_HOST))

    def measure(self, job: Job) -> Outcome:
        for path in (job.data, job.incumbent, job.candidate):
            if path is not None:
                self._upload(path)
        request = {key: v.name if isinstance(v, Path) else v for key, v in asdict(job).items()}
        outcome = json.loads(self._call(_MEASURE, json.dumps(request)))
        times = {name: tuple(outcome[name]) for name in ("candidate", "incumbent")}
        return Outcome(**{**outcome, **times})

    def compare_models(self, models: tuple[Path, Path], threads: int, rounds: int) -> ModelTimes:
        for path in models:
            self._upload(path)
        request = {"models": [path.name for path in models], "threads": threads, "rounds": rounds}
        return json.loads(self._call(_COMPARE, json.dumps(request)))

    def peak(self, level: str) -> float | None:
        return float(self._call(_PEAK, level)) or None

    def close(self) -> None:
        self._session = None

    def _upload(self, path: Path) -> None:
        """Send a file that is not there yet; a tuner's files have a name of their own each."""
        if path.name not in self._files:
            self._guard(lambda: self._session.upload(bytearray(path.read_bytes()), path.name))
            self._files.add(path.name)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._guard(lambda: self._session.get_function(name)(*arguments))

    def _guard(self, action):
        try:
            return action()
        except Exception as error:  # TVM has several kinds for a connection that ended
            reason = " ".join(str(error).split())[-200:]
            raise TuningError(
                f"the RPC server does not answer as lowgemm's does: {reason}"
            ) from error


def connect(address: str, key: str, levels: Sequence[CpuTarget]) -> list[RemoteRunner]:
    """Every free server that the tracker at `address` (HOST:PORT) knows by `key`.

    Raises:
        InputError: `address` has another form.
        TuningError: there is no tracker, or no free server with this key.
        TargetError: a server's CPU lacks what a level needs.
    """
    host, port = split_address(address)
    hint = f"on each machine to measure on: lowgemm rpc server --tracker {address} --key {key}"
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise TuningError(
            f"no RPC tracker answers at {address} ({error.strerror or error}); start one with "
            f"`lowgemm rpc tracker --port {port}`, and {hint}"
        ) from None
    from tvm import rpc

    tracker = rpc.connect_tracker(host, port)
    try:
        summary = tracker.summary()
        free = summary["queue_info"].get(key, {}).get("free", 0)
        known = sum(info["key"] == f"server:{key}" for info in summary["server_info"])
        if not free:
            state = f"all {known} are in use" if known else f"it knows none; start {hint}"
            raise TuningError(f"the tracker at {address} has no free server {key}: {state}")
        runners = [RemoteRunner(tracker.request(key)) for _ in range(free)]
    finally:
        tracker.close()
    for runner in runners:
        features = frozenset(runner.host["features"])
        for level in levels:
            if missing := level.missing(features):
                raise TargetError(
                    f"cannot tune for {level.level} on {runner.host['node']}: "
                    f"its CPU lacks {', '.join(missing)}"
                )
    return runners


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f'"{address}" is not of the form HOST:PORT')
    return host, int(port)


def start_tracker(host: str, port: int) -> tuple[int, threading.Thread]:
    """Start a tracker in this process; its port (`port` or one of the next that is free), and its thread.

    Raises:
        TuningError: tornado, which TVM's tracker is written with, is missing, or no port is free.
    """
    try:
        from tvm.rpc.tracker import PopenTrackerServerState
    except ImportError:
        raise TuningError("the RPC tracker needs tornado: pip install 'lowgemm[tune]'") from None
    state = _bound(host, port, PopenTrackerServerState)
    return state.port, state.thread


def start_server(host: str, port: int, tracker: str, key: str) -> tuple[int, threading.Thread]:
    """Start a server in this process and register it with the tracker as `key`; its port and its thread."""
    from tvm.rpc.server import PopenRPCServerState

    address = split_address(tracker)
    _register()
    # Each session is a fork of this process, which has the functions registered.
    multiprocessing.set_start_method("fork", force=True)
    state = _bound(host, port, PopenRPCServerState, tracker_addr=address, key=key)
    return state.port, state.thread


def _bound(host: str, port: int, start: Any, **options: Any) -> Any:
    try:
        return start(host, port, port + _PORTS, silent=True, **options)
    except (OSError, ValueError) as error:
        raise TuningError(f"cannot listen on {host}:{port}: {error}") from error


def _register() -> None:
    """Let TVM's server call what measures. Files lie in the session's folder, which is the working directory."""
    import tvm_ffi

    runners: list[LocalRunner] = []

    def runner() -> LocalRunner:
        if not runners:
            runners.append(LocalRunner())
        return runners[0]

    def compare(text: str) -> str:
        request = json.loads(text)
        first, second = (Path(Path(name).name).absolute() for name in request["models"])
        times = runner().compare_models((first, second), request["threads"], request["rounds"])
        return json.dumps(times)

    def measure(text: str) -> str:
        request = json.loads(text)
        files = {
            name: Path(Path(request[name]).name).absolute() if request[name] else None
            for name in ("candidate", "incumbent", "data")
        }
        outcome = asdict(runner().measure(Job(**{**request, **files})))
        return json.dumps(outcome)

    functions = (
        (_HOST, lambda: json.dumps(_host.describe())),
        (_MEASURE, measure),
        (_COMPARE, compare),
        (_PEAK, lambda level: peak_gops(level) or 0.0),
    )
    for name, function in functions:
        tvm_ffi.register_global_func(name, function, override=True)
