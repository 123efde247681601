"""The commands as a user types them, in processes of their own, on the demo's model and on a small one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import lowgemm
from lowgemm.cli import main
from lowgemm.compiler import CompiledModel
from lowgemm.demo import MODEL_PATH, load_digits
from lowgemm.runtime import _library

import onnx_models
from onnx_models import node

pytest.importorskip("onnxruntime", reason="calibration needs the extra lowgemm[quantize]")

# The relative error of 8-bit results: each of about ten roundings adds up to 1/255 of its tensor's range.
QUANTIZATION_ERROR = 0.05
# TVM sums float products in another order than ONNX Runtime.
FLOAT_ERROR = 1e-5

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
    assert done.stdout == ""
    assert done.stderr.startswith("lowgemm: error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that `lowgemm demo` filled, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = shell("demo", "-o", "out", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples that the demo calibrates with, as a file."""
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, image=load_digits().calibration)
    return path


def small_cnn() -> onnx.ModelProto:
    """What a framework exports of a small network in evaluation mode: batch normalization beside the convolutions, an
    inverted residual with hard-swish, global pooling, a linear layer; the batch size is open."""
    rng = np.random.default_rng(5)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants: dict[str, np.ndarray] = {
        "stem.weight": normal(16, 3, 3, 3),
        "expand.weight": normal(32, 16, 1, 1),
        "depthwise.weight": normal(32, 1, 3, 3),
        "project.weight": normal(16, 32, 1, 1),
        "classifier.weight": normal(5, 16),
        "classifier.bias": normal(5),
    }
    for layer, channels in (("stem", 16), ("expand", 32), ("depthwise", 32), ("project", 16)):
        constants |= {
            f"{layer}.scale": np.ones(channels, np.float32) + normal(channels) / 4,
            f"{layer}.shift": normal(channels),
            f"{layer}.mean": normal(channels),
            f"{layer}.var": np.ones(channels, np.float32),
        }
    layers: list[tuple[str, str, dict[str, Any]]] = [
        ("stem", "input", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("expand", "stem", {}),
        ("depthwise", "expand", {"pads": [1, 1, 1, 1], "group": 32}),
        ("project", "depthwise", {}),
    ]
    nodes = []
    for layer, source, attrs in layers:
        statistics = " ".join(f"{layer}.{name}" for name in ("scale", "shift", "mean", "var"))
        normalized = layer if layer == "project" else f"{layer}/norm"
        nodes += [
            node("Conv", f"{source} {layer}.weight", f"{layer}/conv", **attrs),
            node("BatchNormalization", f"{layer}/conv {statistics}", normalized),
        ]
        if normalized != layer:
            nodes.append(node("HardSwish" if layer != "stem" else "Relu", normalized, layer))
    nodes += [
        node("Add", "stem project", "sum"),
        node("GlobalAveragePool", "sum", "pooled"),
        node("Flatten", "pooled", "features"),
        node("Gemm", "features classifier.weight classifier.bias", "scores", transB=1),
    ]
    inputs = {"input": ("float32", ["batch", 3, 20, 20])}
    return onnx_models.model(nodes, inputs, "scores", constants)


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
    assert " to out/digits.so (" in text


def test_run_gives_what_python_gives(demo: tuple[Path, str], tmp_path: Path) -> None:
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
    assert head.split()[:4] == ["layer", "kernel", "output", "MMACs"]
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(MODEL_PATH).graph.node)
    assert sum("conv" in row.lower() for row in rows) >= convolutions
    assert rows[-2:] == ["input image: float32[1, 1, 28, 28]", "output logits: float32[1, 10]"]


def test_inspect_without_a_c_compiler(demo: tuple[Path, str], tmp_path: Path) -> None:
    library = demo[0] / "digits.so"
    done = shell("inspect", library, "--repeat", 1, folder=tmp_path, CC="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "no share of the peak" in done.stderr
    assert "total" in done.stdout


def test_compile_with_the_demos_samples_is_the_demo(
    demo: tuple[Path, str], samples: Path, tmp_path: Path
) -> None:
    """The demo compiles the file that `lowgemm quantize` writes: both ways give the same bytes."""
    done = shell("compile", MODEL_PATH, "--calibrate", samples, "-o", "one.so", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for suffix in (".so", ".h"):
        written = (tmp_path / "one").with_suffix(suffix).read_bytes()
        assert written == (demo[0] / "digits").with_suffix(suffix).read_bytes()


def test_small_cnn_in_float_and_quantized(tmp_path: Path) -> None:
    proto = small_cnn()
    onnx.save(proto, tmp_path / "cnn.onnx")
    rng = np.random.default_rng(6)
    np.savez(tmp_path / "s.npz", input=rng.random((30, 3, 20, 20), np.float32))
    x = rng.random((1, 3, 20, 20), np.float32)
    np.save(tmp_path / "x.npy", x)

    done = shell("compile", "cnn.onnx", "-o", "float.so", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stays one; --calibrate would quantize it" in done.stderr
    done = shell("quantize", "cnn.onnx", "--calibrate", "s.npz", "-o", "q.onnx", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = shell("compile", "q.onnx", "-o", "int8.so", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "float" not in done.stderr

    exact = onnx_models.run_ort(proto, {"input": x})["scores"]
    for library, bound in (("float", FLOAT_ERROR), ("int8", QUANTIZATION_ERROR)):
        flags = ["--input", "input=x.npy", "-o", library]
        done = shell("run", f"{library}.so", *flags, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        scores = np.load(tmp_path / library / "scores.npy")
        assert np.linalg.norm(scores - exact) <= bound * np.linalg.norm(exact)


class TestRefusals:
    """Bad input gets one line and status 2, and leaves nothing behind."""

    @pytest.fixture(autouse=True)
    def leaves_nothing(self, tmp_path: Path):
        yield
        assert not list(tmp_path.glob("*.so")) + list(tmp_path.glob("*.h"))
        assert not (tmp_path / "q.onnx").exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("command", ["compile", "quantize"])
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "model file bad.onnx does not exist"),
            (b"", "bad.onnx is empty"),
            (b"not a model\n", "bad.onnx is not an ONNX model, or is cut short"),
            (MODEL_PATH.read_bytes()[:5000], "bad.onnx is not an ONNX model, or is cut short"),
        ],
        ids=["missing", "empty", "text", "truncated"],
    )
    def test_model(
        self, command: str, content: bytes | None, message: str, samples: Path, tmp_path: Path
    ) -> None:
        if content is not None:
            (tmp_path / "bad.onnx").write_bytes(content)
        flags = ["--calibrate", samples, "-o", "q.onnx"]
        refused(shell(command, "bad.onnx", *flags, folder=tmp_path), message)

    def test_unknown_operators_are_all_named(self, tmp_path: Path) -> None:
        nodes = [
            node("Frobnicate", "x", "a"),
            node("Transmogrify", "a", "b"),
            node("Frobnicate", "b", "y"),
        ]
        onnx.save(onnx_models.model(nodes, {"x": ("float32", [2])}, "y"), tmp_path / "odd.onnx")
        refused(
            shell("compile", "odd.onnx", "-o", "m.so", folder=tmp_path),
            "not supported: Frobnicate in nodes 'the_Frobnicate_a', 'the_Frobnicate_y'; "
            "Transmogrify in node 'the_Transmogrify_b'",
        )

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            (
                {"wrong": np.ones((4, 1, 28, 28), np.float32)},
                "samples are named 'wrong'; the model's inputs: 'image'",
            ),
            ({}, "no samples for the model's input 'image'"),
            (
                {"image": np.ones((4, 3, 28, 28), np.float32)},
                "samples of 'image' have shape [4, 3, 28, 28], and the model takes [N, 1, 28, 28]",
            ),
            (
                {"image": np.full((4, 1, 28, 28), np.nan, np.float32)},
                "sample 0 of 'image' holds NaN",
            ),
            (
                {"image": np.full((4, 1, 28, 28), np.inf, np.float32)},
                "sample 0 of 'image' holds infinity",
            ),
            ({"image": np.ones((0, 1, 28, 28), np.float32)}, "there are zero samples of 'image'"),
            (
                {"image": np.ones((4, 1, 28, 28), np.complex64)},
                "samples of 'image' are complex64, and the model takes",
            ),
        ],
        ids=["name", "none", "shape", "nan", "infinity", "empty", "dtype"],
    )
    def test_samples(self, arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
        np.savez(tmp_path / "s.npz", **arrays)  # pyright: ignore[reportArgumentType]
        flags = ["--calibrate", "s.npz", "-o", "m.so"]
        refused(shell("compile", MODEL_PATH, *flags, folder=tmp_path), message)

    def test_samples_that_differ_in_number(self, tmp_path: Path) -> None:
        inputs: dict = {"a": ("float32", ["n", 4]), "b": ("float32", ["n", 4])}
        nodes = [node("Add", "a b", "s"), node("MatMul", "s w", "y")]
        constants = {"w": np.ones((4, 3), np.float32)}
        onnx.save(onnx_models.model(nodes, inputs, "y", constants), tmp_path / "two.onnx")
        np.savez(tmp_path / "s.npz", a=np.ones((5, 4), np.float32), b=np.ones((6, 4), np.float32))
        flags = ["--calibrate", "s.npz", "-o", "m.so"]
        refused(
            shell("compile", "two.onnx", *flags, folder=tmp_path),
            "the inputs have different numbers of samples: 5 of 'a', 6 of 'b'",
        )

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "sample file s.npz does not exist"),
            (
                b"",
                "s.npz is no .npz file: save the samples with numpy.savez(path, INPUT_NAME=array)",
            ),
            (b"\x93NUMPY\x01\x00", "s.npz holds one array without a name: save the samples with"),
            (b"PK\x03\x04 cut short", "cannot read s.npz: "),
        ],
        ids=["missing", "empty", "npy", "truncated"],
    )
    def test_samples_file(self, content: bytes | None, message: str, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "s.npz").write_bytes(content)
        flags = ["--calibrate", "s.npz", "-o", "q.onnx"]
        refused(shell("quantize", MODEL_PATH, *flags, folder=tmp_path), message)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (
                ["--target", "avx3000"],
                'unknown target "avx3000"; use "host" or some of avx512_vnni, ',
            ),
            (
                ["--shape", "picture=1x1x28x28"],
                "a shape is given for 'picture'; the inputs are 'image'",
            ),
            (
                ["--shape", "image=1x1x28x29"],
                "input 'image' has 28 elements along axis 3, and shape 1x1x28x29 says 29",
            ),
            (["--shape", "image=28"], "input 'image' has 4 axes, and shape 28 has 1"),
            (["-o", "nowhere/m.so"], 'folder "nowhere" does not exist'),
        ],
        ids=["target", "shape's name", "shape", "rank", "folder"],
    )
    def test_flag(self, flags: list[str], message: str, tmp_path: Path) -> None:
        refused(shell("compile", MODEL_PATH, "-o", "m.so", *flags, folder=tmp_path), message)

    def test_quantized_model_with_samples(
        self, demo: tuple[Path, str], samples: Path, tmp_path: Path
    ) -> None:
        flags = ["--calibrate", samples, "-o", "m.so"]
        done = shell("compile", demo[0] / "digits-int8.onnx", *flags, folder=tmp_path)
        refused(done, "the model is quantized already: compile it without calibration")

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            (
                "image",
                np.ones((1, 1, 28, 28)),
                "input image: float32[1, 1, 28, 28] was given as float64[1, 1, 28, 28]",
            ),
            (
                "image",
                np.ones((1, 1, 28, 27), np.float32),
                "input image: float32[1, 1, 28, 28] was given as float32[1, 1, 28, 27]",
            ),
            (
                "picture",
                np.ones((1, 1, 28, 28), np.float32),
                "the model's inputs are image; given were picture",
            ),
        ],
        ids=["dtype", "shape", "name"],
    )
    def test_input(
        self, demo: tuple[Path, str], name: str, array: np.ndarray, message: str, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "x.npy", array)
        flags = ["--input", f"{name}=x.npy", "-o", "out"]
        refused(shell("run", demo[0] / "digits.so", *flags, folder=tmp_path), message)
        assert not (tmp_path / "out").exists()

    def test_input_left_out(self, demo: tuple[Path, str], tmp_path: Path) -> None:
        done = shell("run", demo[0] / "digits.so", folder=tmp_path)
        refused(done, "the model's inputs are image; given were none")

    @pytest.mark.parametrize("command", ["run", "inspect"])
    def test_library_that_is_none(
        self, command: str, demo: tuple[Path, str], tmp_path: Path
    ) -> None:
        (tmp_path / "text").write_text("not a library\n")
        refused(shell(command, "text", folder=tmp_path), "text is not a shared library")
        refused(shell(command, "nowhere", folder=tmp_path), "there is no file nowhere")
        (tmp_path / "cut").write_bytes((demo[0] / "digits.so").read_bytes()[:20_000])
        refused(shell(command, "cut", folder=tmp_path), "cut is truncated: 20000 bytes of ")
        other = next(Path(np.__file__).parent.rglob("*.so"))
        refused(shell(command, other, folder=tmp_path), f"{other} was not made by lowgemm")

    @pytest.mark.parametrize("command", ["run", "inspect"])
    def test_library_of_a_newer_format(
        self, command: str, demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In this process, where lowgemm can be made older than the library."""
        written = _library.FORMAT
        monkeypatch.setattr(_library, "FORMAT", written - 1)
        result = CliRunner().invoke(main, [command, str(demo[0] / "digits.so")])
        assert result.exit_code == 2
        assert result.stderr == (
            f"lowgemm: error: {demo[0] / 'digits.so'} has format {written}; "
            f"this lowgemm reads up to {written - 1}: install a newer one\n"
        )

    def test_cpu_without_the_features(self, tmp_path: Path) -> None:
        """The plan is told to need what no CPU has, so that this runs on every host."""
        nodes = [node("Relu", "x", "y")]
        onnx.save(onnx_models.model(nodes, {"x": ("float32", [4])}, "y"), tmp_path / "relu.onnx")
        plan = lowgemm.compile(tmp_path / "relu.onnx").plan
        (variant,) = plan.variants
        needy = replace(variant, features=(*variant.features, "avx9000"))
        folder = tmp_path / "foreign"
        folder.mkdir()
        CompiledModel(replace(plan, variants=(needy,))).export(folder / "m.so")
        refused(shell("run", "m.so", folder=folder), "this CPU cannot run the model: ", "avx9000")

    @pytest.mark.parametrize("command", ["compile", "demo"])
    def test_no_c_compiler(self, command: str, tmp_path: Path) -> None:
        arguments = ["compile", MODEL_PATH, "-o", "m.so"] if command == "compile" else ["demo"]
        done = shell(*arguments, folder=tmp_path, CC="no-such-compiler")
        refused(done, "CC=no-such-compiler: there is no such program")
        assert not list(tmp_path.glob("lowgemm-demo/*"))
