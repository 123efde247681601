"""`import lowgemm` and `lowgemm.load` load numpy and nothing else that was installed."""

import json
import subprocess
import sys

_PROBE = """
import json, sys
before = set(sys.modules)
{code}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(n for n in names if n not in sys.stdlib_module_names)))
"""


def packages_loaded_by(code: str) -> set[str]:
    """The installed packages that a fresh interpreter has loaded after `code`."""
    # -I -S would hide site-packages; what a .pth file loads at start is in `before` and does not
    # count.
    command = [sys.executable, "-c", _PROBE.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    return {name for name in loaded if not name.startswith(("_", "__editable__"))}


def test_import_lowgemm_loads_only_numpy() -> None:
    assert packages_loaded_by("import lowgemm") <= {"lowgemm", "numpy"}


def test_load_needs_only_numpy() -> None:
    code = """
import lowgemm
from lowgemm.errors import ArtifactError
try:
    lowgemm.load("/nonexistent.so")
except ArtifactError:
    pass
"""
    assert packages_loaded_by(code) <= {"lowgemm", "numpy"}


def test_help_loads_only_click() -> None:
    code = """
from lowgemm.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
"""
    # colorama: click imports it where it is installed.
    assert packages_loaded_by(code) <= {"lowgemm", "click", "numpy", "colorama"}


def test_probe_can_fail() -> None:
    assert "onnx" in packages_loaded_by("import onnx")
