"""Graph passes: from float operators between quantize and dequantize to integer operators with fused epilogues."""

from lowgemm.passes._quantized import Quantization as Quantization
from lowgemm.passes._quantized import add_ratios as add_ratios
from lowgemm.passes._quantized import fuse_quantized as fuse_quantized
from lowgemm.passes._quantized import mul_ratio as mul_ratio
from lowgemm.passes._regions import group_float_regions as group_float_regions
