"""Graph passes: from float operators between quantize and dequantize to integer operators with fused epilogues."""

from lowgemm.passes._islands import fuse_quantized as fuse_quantized
from lowgemm.passes._quantization import Quantization as Quantization
from lowgemm.passes._quantization import mul_ratio as mul_ratio
from lowgemm.passes._regions import group_float_regions as group_float_regions
from lowgemm.passes._tables import rescaling as rescaling
