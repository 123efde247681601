"""Whatever a candidate does, measuring it has an outcome: its times, or the reason why there are none."""

from pathlib import Path

import pytest

from lowgemm.tune._child import compare
from lowgemm.tune._measure import Job, LocalRunner
from lowgemm.tune._worker import Worker, WorkerFailure

from candidates import make_candidate, make_data

_MEMORY = 64 << 20

_GROW = """
  for (;;) { volatile char *p = malloc(1 << 20); if (!p) abort(); memset((void *)p, 1, 1 << 20); }
"""


@pytest.fixture(scope="module")
def runner():
    made = LocalRunner()
    yield made
    made.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_candidate(tmp_path_factory.mktemp("good") / "good.so")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "data.npz")


def test_a_right_candidate_is_timed_beside_the_incumbent(runner, good, data, tmp_path) -> None:
    slow = make_candidate(tmp_path / "slow.so", "for (volatile int i = 0; i < 100000; i++) {}")
    outcome = runner.measure(Job(slow, good, data, 1, rounds=5))
    assert outcome.failure is None
    assert len(outcome.candidate) == len(outcome.incumbent) >= 3
    assert outcome.ratio > 3
    assert min(outcome.candidate) > max(outcome.incumbent) * 3


def test_without_an_incumbent_a_candidate_is_its_own(runner, good, data) -> None:
    outcome = runner.measure(Job(good, None, data, 1, rounds=5))
    assert outcome.failure is None and len(outcome.candidate) == 5
    assert 0.5 < outcome.ratio < 2


FAILURES = {
    "wrong": ("from = (unsigned char *)calloc(4096, 1);", "wrong result: 4080 of 4096 values"),
    "one-value-wrong": ("from[77]++;", "wrong result: 1 of 4096 values"),
    "crash": ("*(volatile int *)0 = 1;", "crash: SIGSEGV"),
    "illegal-instruction": ('__asm__("ud2");', "crash: SIGILL"),
    "abort": ("abort();", "crash: SIGABRT"),
    "exit": ("_Exit(3);", "crash: exit status 3"),
    "hang": ("for (volatile int i = 0;; i = 0) {}", "time: no result within 2 s"),
    "memory": (_GROW, "memory: more than 64 MiB"),
    "error": ("return -1;", "running: "),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_candidate_that_fails(runner, good, data, tmp_path, kind: str) -> None:
    """It is told why, and the next candidate is measured as ever."""
    body, reason = FAILURES[kind]
    bad = make_candidate(tmp_path / "bad.so", body)
    outcome = runner.measure(Job(bad, good, data, 1, rounds=5, seconds=2.0, memory=_MEMORY))
    assert outcome.failure is not None and outcome.failure.startswith(reason)
    assert outcome.candidate == ()
    assert runner.measure(Job(good, None, data, 1, rounds=3)).failure is None


def test_a_wrong_candidate_is_never_timed(runner, good, data, tmp_path) -> None:
    """It hangs when it is run for the second time; the first run already shows that it is wrong."""
    body = "static int runs; if (runs++) for (;;) pause_forever(); from[0]++;"
    body = body.replace("pause_forever()", '__asm__ volatile("pause")')
    bad = make_candidate(tmp_path / "bad.so", body)
    outcome = runner.measure(Job(bad, good, data, 1, rounds=5, seconds=2.0))
    assert outcome.failure == "wrong result: 1 of 4096 values"


def test_a_file_that_is_no_library(runner, good, data, tmp_path) -> None:
    (tmp_path / "bad.so").write_bytes(b"nothing")
    outcome = runner.measure(Job(tmp_path / "bad.so", good, data, 1, rounds=5))
    assert outcome.failure is not None and "is not a shared library" in outcome.failure


def test_threads_are_those_of_the_job(runner, good, data) -> None:
    assert runner.measure(Job(good, None, data, 2, rounds=3)).failure is None


def test_outliers_count_little() -> None:
    calm = compare([1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0])
    disturbed = compare([1.0, 1.01, 0.99, 5.0, 1.01, 0.99, 1.0])
    assert disturbed["ratio"] == pytest.approx(calm["ratio"], rel=0.02)
    assert disturbed["noise"] < 0.02
    assert compare([1.0, 1.5, 0.7, 1.2, 0.8])["noise"] > 0.05


def test_a_process_that_dies_is_started_again(tmp_path, monkeypatch) -> None:
    (tmp_path / "dies.py").write_text(
        "import os\n"
        "from lowgemm.tune._worker import serve\n"
        "def answer(request):\n"
        "    print('noise on stdout')\n"
        "    if request['do'] == 'die': os.abort()\n"
        "    if request['do'] == 'exit': raise SystemExit('enough')\n"
        "    while request['do'] == 'hang': pass\n"
        "    return request\n"
        "serve(answer)\n"
    )
    worker = Worker("dies", {"PYTHONPATH": str(tmp_path)})
    try:
        assert worker.call({"do": "echo"}, 60) == {"do": "echo"}
        with pytest.raises(WorkerFailure, match="ended by SIGABRT"):
            worker.call({"do": "die"}, 60)
        with pytest.raises(WorkerFailure, match="ended with status 1: enough"):
            worker.call({"do": "exit"}, 60)
        assert worker.call({"do": "echo"}, 60) == {"do": "echo"}
        with pytest.raises(WorkerFailure, match=r"no result within 0\.5 s"):
            worker.call({"do": "hang"}, 0.5)
        assert worker.call({"do": "echo"}, 60) == {"do": "echo"}
    finally:
        worker.close()
