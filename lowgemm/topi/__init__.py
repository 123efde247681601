"""What each integer operator computes: tensor expressions with the exact integer meaning, no target, no schedule.

Block names that schedules look for: `stage` (padded, widened input), `widen` (weights in the operand dtype), `acc`
(the 32-bit accumulation), `dst` (requantized output).
"""

from lowgemm.topi._arith import f32 as f32
from lowgemm.topi._arith import fma as fma
from lowgemm.topi._arith import word_of as word_of
from lowgemm.topi._conv import ConvForm as ConvForm
from lowgemm.topi._conv import holds_codes as holds_codes
from lowgemm.topi._conv import qconv2d as qconv2d
from lowgemm.topi._depthwise import DepthwiseForm as DepthwiseForm
from lowgemm.topi._depthwise import depthwise_out_shape as depthwise_out_shape
from lowgemm.topi._depthwise import qdepthwise2d as qdepthwise2d
from lowgemm.topi._elementwise import dequantize as dequantize
from lowgemm.topi._elementwise import move as move
from lowgemm.topi._elementwise import qadd as qadd
from lowgemm.topi._elementwise import qmul as qmul
from lowgemm.topi._elementwise import qpool as qpool
from lowgemm.topi._elementwise import qresize as qresize
from lowgemm.topi._elementwise import quantize as quantize
from lowgemm.topi._embedding import BagForm as BagForm
from lowgemm.topi._epilogue import REQUANTIZE_PARAMS as REQUANTIZE_PARAMS
from lowgemm.topi._epilogue import requantize as requantize
from lowgemm.topi._float_gemm import FloatGemmArguments as FloatGemmArguments
from lowgemm.topi._float_gemm import FloatGemmForm as FloatGemmForm
from lowgemm.topi._float_gemm import weight_value as weight_value
from lowgemm.topi._gemm import QUANTIZE_PARAMS as QUANTIZE_PARAMS
from lowgemm.topi._gemm import GemmForm as GemmForm
from lowgemm.topi._gemm import qgemm as qgemm
from lowgemm.topi._kernels import copy_into as copy_into
from lowgemm.topi._kernels import lookup as lookup
from lowgemm.topi._kernels import lookup_table as lookup_table
from lowgemm.topi._narrow import is_nan as is_nan
from lowgemm.topi._narrow import narrowed as narrowed
from lowgemm.topi._narrow import stored as stored
from lowgemm.topi._narrow import widened as widened
from lowgemm.topi._output import OUTPUT_PARAMS as OUTPUT_PARAMS
from lowgemm.topi._output import OutputForm as OutputForm
from lowgemm.topi._output import OutputStage as OutputStage
from lowgemm.topi._pointwise import Param as Param
from lowgemm.topi._pointwise import Pointwise as Pointwise
from lowgemm.topi._pointwise import converting as converting
from lowgemm.topi._pointwise import dequantizing as dequantizing
from lowgemm.topi._pointwise import quantizing as quantizing
from lowgemm.topi._pointwise import quantizing_back as quantizing_back
from lowgemm.topi._pointwise import requantizing as requantizing
from lowgemm.topi._pointwise import requantizing_fixed as requantizing_fixed
from lowgemm.topi._resample import resample as resample
from lowgemm.topi._rowwise import RowFormat as RowFormat
