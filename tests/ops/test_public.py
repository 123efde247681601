"""Everything public in `lowgemm.ops` is typed and says what it takes, gives and refuses."""

import inspect
import re
from collections.abc import Callable, Iterator

import pytest

from lowgemm import ops


def functions() -> Iterator[tuple[str, Callable]]:
    """The functions, and the methods of the classes that are no exceptions."""
    for name, value in vars(ops).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and not issubclass(value, Exception):
            for part, method in vars(value).items():
                if inspect.isfunction(method) and (part == "__call__" or not part.startswith("_")):
                    yield f"{name}.{part}", method


FUNCTIONS = dict(functions())
# What has no argument that could be described, or is described by its one sentence.
PLAIN = {"get_num_threads", "set_num_threads"}
# Whose definition it is, or the function that says so.
SOURCE = re.compile(r"FBGEMM|ONNX|IEEE|`(quant|reference)\.|`pack_|`quantize`|of a call")
# No rules, but what kernels take for them.
FOR_KERNELS = {
    f"Output.{name}" for name in ("columns", "form", "integer_bias", "params", "sum_params")
}
RESULTS = ("np.ndarray", "tuple[float, float]", "tuple[int, ...]", "QParams")


def undocumented(function: Callable) -> list[str]:
    """What the docstring of a function does not say, or its signature."""
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    names = [name for name in signature.parameters if name != "self"]
    missing = [
        f"type of {name}"
        for name in names
        if signature.parameters[name].annotation is inspect.Parameter.empty
    ]
    if signature.return_annotation is inspect.Signature.empty:
        missing.append("type of the result")
    described = text.partition("Args:")[2]
    # "Args: those of `quantize`" and the like send the reader on.
    sent = "Args: those of" in text or "of a call" in text
    for name in names:
        if f"{name}:" not in described and f"{name}," not in described and not sent:
            missing.append(name)
    if names and "Raises:" not in text and not sent:
        missing.append("errors")
    if function.__qualname__ in FOR_KERNELS:
        return missing
    if "Returns:" not in text and signature.return_annotation in RESULTS:
        missing.append("the result")
    if not SOURCE.search(text):
        missing.append("the source of its rule")
    return missing


def test_there_are_functions() -> None:
    assert {"pack_gemm", "pack_conv_acc16", "embedding_bag", "PackedGemm.__call__"} <= set(
        FUNCTIONS
    )


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - PLAIN))
def test_said(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert text.splitlines()[:1], f"{name} has no docstring"
    assert undocumented(FUNCTIONS[name]) == []


def test_what_is_missing_is_seen() -> None:
    def bare(x, y: int):
        """Bare."""

    assert undocumented(bare) == [
        "type of x",
        "type of the result",
        "x",
        "y",
        "errors",
        "the source of its rule",
    ]
