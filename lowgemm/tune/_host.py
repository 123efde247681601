"""What a tuning record says of the machine it was measured on."""

import platform
import socket
from pathlib import Path
from typing import Any

from lowgemm import targets

_FIELDS = ("model name", "cpu family", "model", "stepping")


def describe() -> dict[str, Any]:
    """This machine: `cpu` (what times depend on, beside load), `node` (its name) and the CPU's `features`."""
    return {
        "cpu": cpu_name(),
        "node": socket.gethostname(),
        "features": sorted(targets.host_features() & _known()),
    }


def cpu_name() -> str:
    """The CPU's model name with family, model and stepping, because virtual machines share names."""
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name, *numbers = (found.get(field, "") for field in _FIELDS)
    return f"{name or platform.processor() or 'unknown'} ({'-'.join(n or '?' for n in numbers)})"


def _known() -> set[str]:
    return {name for level in targets.LEVELS.values() for name in level.features}
