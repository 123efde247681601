"""The oracle: what every operator means, in numpy, written to be read rather than to be fast.

Sums and products of real numbers are taken in float64 and rounded to float32 once, at the end of an
operator. Sums of integers are exact, then taken modulo 2**32 as int32 hardware does. Output stages, embedding
bags and sparse float products say where each of their steps is rounded to float32, so that kernels compare
with ==.
"""

from lowgemm.quant import requantize as requantize
from lowgemm.reference._conv import conv2d_i32 as conv2d_i32
from lowgemm.reference._conv import conv_i32 as conv_i32
from lowgemm.reference._conv import im2col as im2col
from lowgemm.reference._embedding import embedding_bag as embedding_bag
from lowgemm.reference._embedding import remap_indices as remap_indices
from lowgemm.reference._float_gemm import BFLOAT16_ROUNDOFF as BFLOAT16_ROUNDOFF
from lowgemm.reference._float_gemm import Bounded as Bounded
from lowgemm.reference._float_gemm import gemm_f32 as gemm_f32
from lowgemm.reference._integer import column_offsets as column_offsets
from lowgemm.reference._integer import gemm_i32 as gemm_i32
from lowgemm.reference._integer import gemm_i64 as gemm_i64
from lowgemm.reference._integer import row_sums as row_sums
from lowgemm.reference._output import Residual as Residual
from lowgemm.reference._output import output_stage as output_stage
from lowgemm.reference._output import requantize_transposed as requantize_transposed
from lowgemm.reference._resize import axis_weights as axis_weights
from lowgemm.reference._resize import nearest_index as nearest_index
from lowgemm.reference._run import OPERATORS as OPERATORS
from lowgemm.reference._run import evaluate as evaluate
from lowgemm.reference._run import run_graph as run_graph
from lowgemm.reference._saturating import FLUSH_DEPTH as FLUSH_DEPTH
from lowgemm.reference._saturating import conv_acc16 as conv_acc16
from lowgemm.reference._saturating import gemm_acc16 as gemm_acc16
from lowgemm.reference._saturating import gemm_maddubs as gemm_maddubs
from lowgemm.reference._saturating import split_outliers as split_outliers
from lowgemm.reference._sparse import SparseBlocks as SparseBlocks
from lowgemm.reference._sparse import SparseColumns as SparseColumns
from lowgemm.reference._sparse import SparseRows as SparseRows
from lowgemm.reference._sparse import sparse_gemm_f32 as sparse_gemm_f32
from lowgemm.reference._sparse import sparse_gemm_i32 as sparse_gemm_i32
from lowgemm.reference._sparse import spmdm_i32 as spmdm_i32
