"""Gate tests on instruction sets, and prove that every level this host has was exercised; keep compiled kernels for one
run."""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from lowgemm.ops import _library

import isa

_ROOT = Path(__file__).parent.parent


# `--hypothesis-profile=thorough`: the examples of tests/ops/test_random.py that CI has no time for.
settings.register_profile("thorough")

_CACHE = "LOWGEMM_CACHE"
_own_cache = pytest.StashKey[str]()
_emulated_level = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulate",
        action="store_true",
        help="run tests of levels that this CPU lacks in an emulator, not only those marked `emulated`",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Kernels of `lowgemm.ops` are kept in a folder that all workers of this run share, unless one is named.

    An operator that writes past the end of a temporary buffer ends the process (artifact/csrc/memory.c).
    """
    _library._FLAGS = (*_library._FLAGS, "-DLG_GUARD")
    if not hasattr(config, "workerinput") and _CACHE not in os.environ:
        config.stash[_own_cache] = os.environ[_CACHE] = tempfile.mkdtemp(prefix="lowgemm-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_own_cache, None)
    if folder is not None:
        del os.environ[_CACHE]
        shutil.rmtree(folder, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("isa"):
        (level,) = marker.args
        if missing := isa.missing_features(level):
            reason = f"{level}: this CPU lacks {', '.join(missing)}"
            asked = item.config.getoption("--emulate") or item.get_closest_marker("emulated")
            if not (asked and marker.kwargs.get("emulate")):
                pytest.skip(reason)
            import emulated

            if why := emulated.missing():
                pytest.fail(f"{reason}, and {why}", pytrace=False)
            item.stash[_emulated_level] = level


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item):
    level = item.stash.get(_emulated_level, None)
    if level is None:
        yield
        return
    import emulated

    with emulated.cpu(level):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.passed:
        levels = {marker.args[0] for marker in item.iter_markers("isa")}
        isa.exercised.update(levels)
        # Tests of operators that do not count cases themselves are a case each.
        if item.path.parent == _ROOT / "tests/ops" and "conformance" not in item.fixturenames:  # type: ignore[attr-defined]
            for level in levels:
                isa.record_conformance(item.path.stem.replace("test_", "ops/"), level)


@pytest.fixture
def record_isa():
    """`record_isa(level)`: note that a kernel of this level has run."""
    return isa.record_isa


@pytest.fixture
def conformance():
    """`conformance(op, level, cases)`: note that so many cases of an operator agreed with the oracle."""
    return isa.record_conformance


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    # pytest-xdist gives each worker this dict, which goes to the main process.
    output: dict[str, list] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output["exercised"] = sorted(isa.exercised)
        output["conformance"] = [[*key, cases] for key, cases in isa.conformance.items()]
    elif _failures(config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    output = getattr(node, "workeroutput", {})
    isa.exercised.update(output.get("exercised", ()))
    isa.conformance.update(
        Counter({(op, level): cases for op, level, cases in output.get("conformance", ())})
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("instruction-set levels")
    for level in isa.LEVELS:
        exercised = level in isa.exercised
        if missing := isa.missing_features(level):
            state = f"not on this CPU (lacks {', '.join(missing)})"
            if exercised:
                state = f"exercised in an emulator; {state}"
        else:
            state = "exercised" if exercised else "NOT EXERCISED"
        terminalreporter.line(f"{level:<12} {state}")
    if rows := isa.conformance_rows():
        terminalreporter.section("cases that agree with the oracle")
        wide = max(len(op) for op, _ in rows)
        for op, cells in [("", list(isa.LEVELS)), *rows]:
            terminalreporter.line(f"{op:<{wide}}" + "".join(f"{cell:>15}" for cell in cells))
    for text in _failures(terminalreporter.config):
        terminalreporter.line(f"FAILED: {text}", red=True)


def _failures(config: pytest.Config) -> list[str]:
    """What a run lacks although nothing narrowed it."""
    found = []
    if _is_whole_suite(config) and any(x not in isa.exercised for x in isa.host_levels()):
        found.append("this CPU runs a level that no test has exercised")
    if _is_whole_files(config) and (ops := isa.lacking()):
        found.append(f"not compared with the oracle at a level of this CPU: {', '.join(ops)}")
    return found


def _is_whole_suite(config: pytest.Config) -> bool:
    """Whether nothing narrows the run: only then must every level have been exercised."""
    if not _is_whole_files(config):
        return False
    return all(Path(argument).resolve() in (_ROOT, _ROOT / "tests") for argument in config.args)


def _is_whole_files(config: pytest.Config) -> bool:
    """Whether all tests of some files run: those of one operator are in one file."""
    option = config.option
    if option.keyword or option.markexpr or option.collectonly or option.maxfail:
        return False
    if getattr(option, "lf", False) or getattr(option, "deselect", None):
        return False
    return not any("::" in argument for argument in config.args)
