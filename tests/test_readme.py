"""What README promises: its blocks run, its set-up is two commands, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced code blocks of `language` in `text`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_blocks_run_in_order(tmp_path: Path) -> None:
    """All in one empty folder, as a reader would."""
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    for script in blocks("console"):
        commands = [line[2:] for line in script.splitlines() if line.startswith("$ ")]
        assert commands
        for command in commands:
            subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=environment)
    assert blocks("python")
    for source in blocks("python"):
        subprocess.run([sys.executable, "-c", source], check=True, cwd=tmp_path)


def test_set_up_is_two_commands_and_the_first_runs_the_demo() -> None:
    commands = blocks("sh")
    assert len(commands) == 2
    assert all(len(command.splitlines()) == 1 for command in commands)
    assert commands[0].rstrip().endswith("lowgemm demo")
    assert commands[1].rstrip().endswith("pytest -n auto"), "the whole suite, on all CPUs"


def test_links_lead_to_files() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
