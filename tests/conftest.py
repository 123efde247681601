"""Gate tests on instruction sets, and prove that every level this host has was exercised."""

from pathlib import Path

import pytest

import isa

_ROOT = Path(__file__).parent.parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("isa"):
        (level,) = marker.args
        if missing := isa.missing_features(level):
            pytest.skip(f"{level}: this CPU lacks {', '.join(missing)}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.passed:
        isa.exercised.update(marker.args[0] for marker in item.iter_markers("isa"))


@pytest.fixture
def record_isa():
    """`record_isa(level)`: note that a kernel of this level has run."""
    return isa.record_isa


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    # pytest-xdist gives each worker this dict, which goes to the main process.
    output: dict[str, list[str]] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output["exercised"] = sorted(isa.exercised)
    elif _is_whole_suite(config) and _not_exercised() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    isa.exercised.update(getattr(node, "workeroutput", {}).get("exercised", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("instruction-set levels")
    for level in isa.LEVELS:
        if missing := isa.missing_features(level):
            state = f"not on this CPU (lacks {', '.join(missing)})"
        else:
            state = "exercised" if level in isa.exercised else "NOT EXERCISED"
        terminalreporter.line(f"{level:<12} {state}")
    if _not_exercised() and _is_whole_suite(terminalreporter.config):
        terminalreporter.line("FAILED: this CPU runs a level that no test has exercised", red=True)


def _not_exercised() -> list[str]:
    return [level for level in isa.host_levels() if level not in isa.exercised]


def _is_whole_suite(config: pytest.Config) -> bool:
    """Whether nothing narrows the run: only then must every level have been exercised."""
    option = config.option
    if option.keyword or option.markexpr or option.collectonly or option.maxfail:
        return False
    if getattr(option, "lf", False) or getattr(option, "deselect", None):
        return False
    return all(Path(argument).resolve() in (_ROOT, _ROOT / "tests") for argument in config.args)
