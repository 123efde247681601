"""Quantized operators for arrays: pack a weight once, call many times; compiled on first use and kept on disk."""

from lowgemm.ops._arrays import OperandError as OperandError
from lowgemm.ops._call import KernelError as KernelError
from lowgemm.ops._call import get_num_threads as get_num_threads
from lowgemm.ops._call import set_num_threads as set_num_threads
from lowgemm.ops._conv import PackedConv as PackedConv
from lowgemm.ops._conv import pack_conv as pack_conv
from lowgemm.ops._convert import convert as convert
from lowgemm.ops._convert import transpose as transpose
from lowgemm.ops._embedding import embedding_bag as embedding_bag
from lowgemm.ops._float_gemm import PackedFloatGemm as PackedFloatGemm
from lowgemm.ops._float_gemm import pack_float_gemm as pack_float_gemm
from lowgemm.ops._gemm import PackedGemm as PackedGemm
from lowgemm.ops._gemm import Quantize as Quantize
from lowgemm.ops._gemm import pack_gemm as pack_gemm
from lowgemm.ops._output import Output as Output
from lowgemm.ops._output import Residual as Residual
from lowgemm.ops._quantize import choose_qparams as choose_qparams
from lowgemm.ops._quantize import dequantize as dequantize
from lowgemm.ops._quantize import min_max as min_max
from lowgemm.ops._quantize import quantize as quantize
from lowgemm.ops._quantize import quantize_dequantize as quantize_dequantize
from lowgemm.ops._quantize import requantize as requantize
from lowgemm.ops._rows import dequantize_rows as dequantize_rows
from lowgemm.ops._rows import quantize_rows as quantize_rows
