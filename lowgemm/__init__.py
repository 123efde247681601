"""lowgemm: compile quantized models to fast, self-contained x86 libraries.

    model = lowgemm.compile("model.onnx", calibration={"x": samples})
    model.export("model.so")
    net = lowgemm.load("model.so", threads=2)
    out = net({"x": array})

`quantize` writes the quantized model that `compile` would use, `tune` finds the fastest kernels for it by measuring,
and `ops` has the kernels as operators on arrays. Importing this module needs numpy only; functions import their tools
when they are called.
"""

from lowgemm import ops as ops
from lowgemm.compiler import CompiledModel as CompiledModel
from lowgemm.compiler import compile as compile
from lowgemm.frontend.quantize import quantize as quantize
from lowgemm.runtime import Net as Net
from lowgemm.runtime import load as load
from lowgemm.tune import tune as tune

__version__ = "0.1.0"
