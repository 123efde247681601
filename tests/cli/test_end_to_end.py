"""The commands as a user types them, in processes of their own, on the demo's model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lowgemm.demo import MODEL_PATH, load_digits

import isa

pytest.importorskip("onnxruntime", reason="calibration needs the extra lowgemm[quantize]")

# The shell's own script, beside this interpreter, so that the entry point is tested too.
LOWGEMM = Path(sys.executable).with_name("lowgemm")


def shell(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `lowgemm ARGUMENTS` in `folder`."""
    command = [str(LOWGEMM), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that `done` ended with status 2 and one line on stderr that holds all `words`."""
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("lowgemm: error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that `lowgemm demo` filled, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = shell("demo", "-o", "out", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, image=load_digits().calibration[:20])
    return path


def test_demo_classifies(demo: tuple[Path, str]) -> None:
    folder, text = demo
    assert {path.name for path in folder.iterdir()} == {
        "digits-int8.onnx",
        "digits.h",
        "digits.so",
    }
    shares = {
        line.split()[1]: float(line.split()[2].rstrip("%"))
        for line in text.splitlines()
        if line.startswith("accuracy")
    }
    assert shares["float"] > 97
    assert shares["int8"] > shares["float"] - 1
    assert "ONNX Runtime int8" in text
    assert str(folder / "digits.so") in text


def test_run_gives_what_python_gives(demo: tuple[Path, str], tmp_path: Path) -> None:
    import lowgemm

    image = load_digits().test[:1]
    np.save(tmp_path / "image.npy", image)
    library = demo[0] / "digits.so"
    done = shell("run", library, "--input", "image=image.npy", "-o", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    logits = lowgemm.load(library)({"image": image})["logits"]
    assert np.array_equal(np.load(tmp_path / "out" / "logits.npy"), logits)


def test_inspect_names_every_layer(demo: tuple[Path, str], tmp_path: Path) -> None:
    done = shell("inspect", demo[0] / "digits.so", "--repeat", 3, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split()[:3] == ["layer", "kernel", "MMACs"]
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(MODEL_PATH).graph.node)
    assert sum("conv" in row.lower() for row in rows) >= convolutions


def test_inspect_without_a_c_compiler(demo: tuple[Path, str], tmp_path: Path) -> None:
    library = demo[0] / "digits.so"
    done = shell("inspect", library, "--repeat", 1, folder=tmp_path, CC="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "no share of the peak" in done.stderr
    assert "total" in done.stdout


def test_quantize_then_compile_is_compile_with_samples(samples: Path, tmp_path: Path) -> None:
    done = shell("quantize", MODEL_PATH, "--calibrate", samples, "-o", "q.onnx", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node
    }
    done = shell("compile", "q.onnx", "-o", "two.so", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = shell("compile", MODEL_PATH, "--calibrate", samples, "-o", "one.so", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "image.npy", load_digits().test[:1])
    one, two = (
        shell("run", library, "--input", "image=image.npy", folder=tmp_path).stdout
        for library in ("one.so", "two.so")
    )
    assert one == two != ""


class TestRefusals:
    """Bad input gets one line and status 2, and leaves nothing behind."""

    @pytest.fixture(autouse=True)
    def leaves_nothing(self, tmp_path: Path):
        yield
        assert not list(tmp_path.glob("*.so")) + list(tmp_path.glob("*.h"))
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def test_missing_model(self, tmp_path: Path) -> None:
        refused(shell("compile", "no.onnx", "-o", "m.so", folder=tmp_path), "no.onnx")

    def test_truncated_model(self, tmp_path: Path) -> None:
        (tmp_path / "cut.onnx").write_bytes(MODEL_PATH.read_bytes()[:5000])
        refused(shell("compile", "cut.onnx", "-o", "m.so", folder=tmp_path), "cut.onnx")

    def test_model_that_is_no_onnx(self, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("not a model\n")
        refused(shell("compile", "text.onnx", "-o", "m.so", folder=tmp_path), "text.onnx")

    def test_unknown_operators_are_all_named(self, tmp_path: Path) -> None:
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        nodes = [
            helper.make_node("Frobnicate", ["x"], ["m"], name="first", domain="odd"),
            helper.make_node("Transmogrify", ["m"], ["y"], name="second", domain="odd"),
        ]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("odd", 1)]
        graph = helper.make_graph(nodes, "g", [value], [result])
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, tmp_path / "odd.onnx")
        done = shell("compile", "odd.onnx", "-o", "m.so", folder=tmp_path)
        refused(done, "Frobnicate", "first", "Transmogrify", "second")

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"wrong": np.ones((4, 1, 28, 28), np.float32)}, ["image", "wrong"]),
            ({"image": np.ones((4, 3, 28, 28), np.float32)}, ["image", "28"]),
            ({"image": np.full((4, 1, 28, 28), np.nan, np.float32)}, ["image", "NaN"]),
            ({"image": np.ones((0, 1, 28, 28), np.float32)}, ["image"]),
        ],
        ids=["name", "shape", "nan", "empty"],
    )
    @pytest.mark.parametrize("command", ["compile", "quantize"])
    def test_samples(
        self, command: str, arrays: dict[str, np.ndarray], words: list[str], tmp_path: Path
    ) -> None:
        np.savez(tmp_path / "s.npz", **arrays)  # pyright: ignore[reportArgumentType]
        done = shell(command, MODEL_PATH, "--calibrate", "s.npz", "-o", "m.so", folder=tmp_path)
        refused(done, *words)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "truncated"])
    def test_samples_file(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "s.npz").write_bytes(content)
        done = shell("compile", MODEL_PATH, "--calibrate", "s.npz", "-o", "m.so", folder=tmp_path)
        refused(done, "s.npz")

    def test_target(self, samples: Path, tmp_path: Path) -> None:
        flags = ["--calibrate", samples, "--target", "avx3000"]
        refused(
            shell("compile", MODEL_PATH, "-o", "m.so", *flags, folder=tmp_path), "avx3000", "avx2"
        )

    @pytest.mark.parametrize(
        ("image", "words"),
        [
            (np.ones((1, 1, 28, 28), np.float64), ["image", "float32", "float64"]),
            (np.ones((1, 1, 28, 27), np.float32), ["image", "28", "27"]),
        ],
        ids=["dtype", "shape"],
    )
    def test_input(
        self, demo: tuple[Path, str], image: np.ndarray, words: list[str], tmp_path: Path
    ) -> None:
        np.save(tmp_path / "image.npy", image)
        library = demo[0] / "digits.so"
        done = shell("run", library, "--input", "image=image.npy", folder=tmp_path)
        refused(done, *words)

    def test_no_c_compiler(self, demo: tuple[Path, str], tmp_path: Path) -> None:
        model = demo[0] / "digits-int8.onnx"
        done = shell("compile", model, "-o", "m.so", folder=tmp_path, CC="no-such-compiler")
        refused(done, "no-such-compiler")

    def test_cpu_without_the_features(self, demo: tuple[Path, str], tmp_path: Path) -> None:
        foreign = [level for level in isa.LEVELS if isa.missing_features(level)]
        if not foreign:
            pytest.skip("this CPU has every level")
        model, folder = demo[0] / "digits-int8.onnx", tmp_path / "foreign"
        folder.mkdir()
        flags = ["-o", "m.so", "--target", foreign[0]]
        done = shell("compile", model, *flags, folder=folder)
        assert done.returncode == 0, done.stderr
        refused(shell("run", "m.so", folder=folder), isa.missing_features(foreign[0])[0])

    def test_input_left_out(self, demo: tuple[Path, str], tmp_path: Path) -> None:
        refused(shell("run", demo[0] / "digits.so", folder=tmp_path), "image")

    @pytest.mark.parametrize("command", ["run", "inspect"])
    def test_library_that_is_none(self, command: str, tmp_path: Path) -> None:
        (tmp_path / "text.txt").write_text("not a library\n")
        refused(shell(command, "text.txt", folder=tmp_path), "text.txt")
        refused(shell(command, "nowhere", folder=tmp_path), "nowhere")
