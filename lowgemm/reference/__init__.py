"""The oracle: what every operator means, in numpy, written to be read rather than to be fast.

Sums and products of real numbers are taken in float64 and rounded to float32 once, at the end of an
operator. Sums of integers are exact, then taken modulo 2**32 as int32 hardware does.
"""

from lowgemm.quant import requantize as requantize
from lowgemm.reference._conv import conv2d_i32 as conv2d_i32
from lowgemm.reference._conv import conv_i32 as conv_i32
from lowgemm.reference._integer import gemm_i32 as gemm_i32
from lowgemm.reference._resize import axis_weights as axis_weights
from lowgemm.reference._resize import nearest_index as nearest_index
from lowgemm.reference._run import OPERATORS as OPERATORS
from lowgemm.reference._run import evaluate as evaluate
from lowgemm.reference._run import run_graph as run_graph
