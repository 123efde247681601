"""Run a compiled model with numpy: no TVM, no compiler."""

from lowgemm.runtime._net import Net as Net
from lowgemm.runtime._net import load as load
