"""What each integer operator computes: tensor expressions with the exact integer meaning, no target, no schedule.

Block names that schedules look for: `stage` (padded, widened input), `widen` (weights in the operand dtype), `acc`
(the 32-bit accumulation), `dst` (requantized output).
"""

from lowgemm.topi._arith import word_of as word_of
from lowgemm.topi._conv import ConvForm as ConvForm
from lowgemm.topi._conv import holds_codes as holds_codes
from lowgemm.topi._conv import qconv2d as qconv2d
from lowgemm.topi._depthwise import depthwise_out_shape as depthwise_out_shape
from lowgemm.topi._depthwise import qdepthwise2d as qdepthwise2d
from lowgemm.topi._elementwise import dequantize as dequantize
from lowgemm.topi._elementwise import move as move
from lowgemm.topi._elementwise import qadd as qadd
from lowgemm.topi._elementwise import qmul as qmul
from lowgemm.topi._elementwise import qpool as qpool
from lowgemm.topi._elementwise import qresize as qresize
from lowgemm.topi._elementwise import quantize as quantize
from lowgemm.topi._epilogue import REQUANTIZE_PARAMS as REQUANTIZE_PARAMS
from lowgemm.topi._epilogue import requantize as requantize
from lowgemm.topi._kernels import copy_into as copy_into
from lowgemm.topi._kernels import lookup as lookup
from lowgemm.topi._kernels import lookup_table as lookup_table
from lowgemm.topi._resample import resample as resample
