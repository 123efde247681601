"""Quantization parameters and rounding, in numpy: what the kernels must compute, bit for bit."""

from lowgemm.quant._add import add_codes as add_codes
from lowgemm.quant._add import sum_factors as sum_factors
from lowgemm.quant._fma import fma as fma
from lowgemm.quant._groups import dequantize_groups as dequantize_groups
from lowgemm.quant._groups import quantize_groups as quantize_groups
from lowgemm.quant._half import from_bfloat16 as from_bfloat16
from lowgemm.quant._half import to_bfloat16 as to_bfloat16
from lowgemm.quant._half import to_float16 as to_float16
from lowgemm.quant._linear import dequantize_linear as dequantize_linear
from lowgemm.quant._linear import quantize_dequantize as quantize_dequantize
from lowgemm.quant._linear import quantize_linear as quantize_linear
from lowgemm.quant._linear import quantize_reciprocal as quantize_reciprocal
from lowgemm.quant._qparams import QParams as QParams
from lowgemm.quant._qparams import choose_qparams as choose_qparams
from lowgemm.quant._qparams import choose_symmetric_scales as choose_symmetric_scales
from lowgemm.quant._qparams import min_max as min_max
from lowgemm.quant._requantize import FixedPoint as FixedPoint
from lowgemm.quant._requantize import choose_fixed_point as choose_fixed_point
from lowgemm.quant._requantize import requantize as requantize
from lowgemm.quant._requantize import requantize_fixed_point as requantize_fixed_point
from lowgemm.quant._rows import dequantize_rows as dequantize_rows
from lowgemm.quant._rows import quantize_rows as quantize_rows
from lowgemm.quant._rows import unpack_rows as unpack_rows
