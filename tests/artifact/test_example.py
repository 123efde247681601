"""examples/classify.c, built as its comment says, prints the numbers that Python computes."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

import lowgemm
from lowgemm.artifact.build import find_compiler
from lowgemm.demo import load_digits

import libraries

SOURCE = libraries.CSRC.parents[2] / "examples" / "classify.c"
IMAGES = load_digits().test[:5]


@pytest.fixture(scope="module")
def folder(digits_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program was built, with the library in the folder that the demo writes to."""
    folder = tmp_path_factory.mktemp("example")
    for suffix in (".so", ".h"):
        target = folder / "lowgemm-demo" / f"digits{suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(digits_library.with_suffix(suffix).read_bytes())
    (folder / "examples").symlink_to(SOURCE.parent)
    found = re.search(r"^ \*     cc (.*)$", SOURCE.read_text(), re.MULTILINE)
    assert found, "the comment no longer says how to build"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([*find_compiler(), *strict, *shlex.split(found[1])], cwd=folder, check=True)
    return folder


def classify(folder: Path, images: np.ndarray) -> subprocess.CompletedProcess[str]:
    np.save(folder / "images.npy", images)
    return subprocess.run(
        ["./classify", "images.npy"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_prints_what_python_computes(folder: Path, digits_library: Path) -> None:
    done = classify(folder, IMAGES)
    assert done.returncode == 0, done.stderr
    net = lowgemm.load(digits_library)
    lines = done.stdout.splitlines()
    assert len(lines) == len(IMAGES)
    for line, image in zip(lines, IMAGES, strict=True):
        label, numbers = line.split(":")
        logits = net({"image": image[None]})["logits"][0]
        assert int(label) == logits.argmax()
        assert np.array_equal(np.array(numbers.split(), np.float32), logits)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (IMAGES.astype(np.float64), "not float32"),
        (np.asfortranarray(IMAGES[0, 0].T[:, :20]), "not float32 in C order"),
        (IMAGES[0, 0, :20], "does not hold whole images"),
    ],
    ids=["dtype", "order", "size"],
)
def test_refuses(folder: Path, images: np.ndarray, reason: str) -> None:
    done = classify(folder, images)
    assert done.returncode == 1
    assert reason in done.stderr
