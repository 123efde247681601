"""Measuring by way of TVM's RPC tracker, here on loopback: a tracker and two servers, each a process."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import lowgemm
from lowgemm import targets
from lowgemm.errors import InputError, TargetError, TuningError
from lowgemm.tune._database import Database
from lowgemm.tune._measure import Job
from lowgemm.tune._rpc import RemoteRunner, connect, split_address

from candidates import make_candidate, make_data

pytest.importorskip("tornado", reason="the tracker needs the extra lowgemm[tune]")

KEY = "test"
_COMMAND = [sys.executable, "-c", "from lowgemm.cli import main; main()", "rpc"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """A process of `lowgemm rpc`."""
    return subprocess.Popen([*_COMMAND, *arguments], stderr=subprocess.PIPE, text=True)


def address_of(process: subprocess.Popen[str]) -> str:
    """Where it says that it listens."""
    assert process.stderr is not None
    for line in process.stderr:
        if " listens on " in line:
            return line.split()[-1]
    raise AssertionError(f"lowgemm rpc ended with {process.wait()}")


@pytest.fixture(scope="module")
def tracker() -> Iterator[str]:
    """The address of a tracker with two servers."""
    processes = []
    try:
        processes.append(start("tracker", "--port", "19190"))
        address = address_of(processes[0])
        server = ("server", "--tracker", address, "--key", KEY, "--port", "19090")
        processes += [start(*server), start(*server)]
        assert address_of(processes[1]) != address_of(processes[2])
        yield address
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def ready(tracker: str) -> str:
    """The tracker, once both servers are free: they register themselves again after each session."""
    from tvm import rpc

    session = rpc.connect_tracker(*split_address(tracker))
    for _ in range(100_000):
        if session.summary()["queue_info"].get(KEY, {}).get("free") == 2:
            session.close()
            return tracker
    raise AssertionError("the servers did not register")


@pytest.fixture
def runners(ready: str) -> Iterator[list[RemoteRunner]]:
    found = connect(ready, KEY, [targets.LEVELS["avx2"]])
    yield found
    for runner in found:
        runner.close()


def test_both_servers_measure(runners: list[RemoteRunner], tmp_path: Path) -> None:
    candidate = make_candidate(tmp_path / "good.so")
    data = make_data(tmp_path / "data.npz")
    assert len(runners) == 2
    for runner in runners:
        assert "avx2" in runner.host["features"]
        outcome = runner.measure(Job(candidate, None, data, 1, rounds=3))
        assert outcome.failure is None and len(outcome.candidate) == 3
        assert (runner.peak("avx2") or 0) > 0


def test_a_server_outlives_what_it_measures(runners: list[RemoteRunner], tmp_path: Path) -> None:
    good, data = make_candidate(tmp_path / "good.so"), make_data(tmp_path / "data.npz")
    crash = make_candidate(tmp_path / "crash.so", "*(volatile int *)0 = 1;")
    hang = make_candidate(tmp_path / "hang.so", "for (volatile int i = 0;; i = 0) {}")
    runner, _ = runners
    job = Job(good, good, data, 1, rounds=3, seconds=2.0)
    assert runner.measure(replace(job, candidate=crash)).failure == "crash: SIGSEGV"
    assert runner.measure(replace(job, candidate=hang)).failure == "time: no result within 2 s"
    assert runner.measure(job).failure is None


@pytest.mark.slow
def test_a_model_is_tuned_by_other_machines(ready: str, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes.txt"
    shapes.write_text("gemm 8 32 64\n")
    database = tmp_path / "db.jsonl"
    arguments = {"shapes_file": shapes, "tuning_db": database, "target": "avx2", "threads": 1}
    (result,) = lowgemm.tune(**arguments, trials=6, rpc=ready, key=KEY)
    assert result.trials == len(Database(database).records) == 6
    assert result.failures == 0 and result.seconds


def test_a_target_that_no_server_runs(ready: str) -> None:
    beyond = replace(targets.LEVELS["avx2"], level="beyond", features=("avx2", "avx9000"))
    with pytest.raises(TargetError, match=r"cannot tune for beyond on .* lacks avx9000"):
        connect(ready, KEY, [beyond])


def test_a_key_that_no_server_has(ready: str) -> None:
    with pytest.raises(TuningError, match=r"no free server other: it knows none; start on each"):
        connect(ready, "other", [])


def test_servers_that_are_in_use(runners: list[RemoteRunner], tracker: str) -> None:
    assert len(runners) == 2
    with pytest.raises(TuningError, match="no free server test: all 2 are in use"):
        connect(tracker, KEY, [])


def test_no_tracker() -> None:
    with pytest.raises(TuningError, match=r"no RPC tracker answers at 127\.0\.0\.1:1 .*start one"):
        connect("127.0.0.1:1", KEY, [])


@pytest.mark.parametrize("address", ["here", "here:", ":80", "here:port", "here:70000"])
def test_an_address_of_another_form(address: str) -> None:
    with pytest.raises(InputError, match="is not of the form HOST:PORT"):
        split_address(address)


def test_only_loopback_is_listened_on(ready: str) -> None:
    """Unless told otherwise: neither the tracker nor a server can be reached from outside."""
    own = {int(split_address(ready)[1])}
    from tvm import rpc

    session = rpc.connect_tracker(*split_address(ready))
    own |= {int(info["addr"][1]) for info in session.summary()["server_info"]}
    session.close()
    assert len(own) == 3
    listening = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if line.split()[3] == "0A":  # LISTEN
            listening[int(port, 16)] = address
    assert {listening[port] for port in own} == {"0100007F"}
