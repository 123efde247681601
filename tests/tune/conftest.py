"""Processes for tests of what several tuners, or a killed one, leave behind."""

import multiprocessing
import multiprocessing.forkserver
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Processes that are forked from one which has imported what takes seconds to, and which has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fake_tuning", "xgboost"])
    with pytest.MonkeyPatch.context() as patch:
        # The server finds modules by its environment, not by this process's sys.path.
        paths = [str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        multiprocessing.forkserver.ensure_running()
    return context
