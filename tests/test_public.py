"""What `import lowgemm` offers, and nothing by accident."""

import inspect

import lowgemm


def test_public_names() -> None:
    names = {name for name, value in vars(lowgemm).items() if not inspect.ismodule(value)}
    assert {name for name in names if not name.startswith("_")} == {
        "CompiledModel",
        "Net",
        "compile",
        "load",
        "quantize",
        "tune",
    }
