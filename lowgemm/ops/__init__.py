"""Quantized operators for arrays: pack a weight once, call many times; compiled on first use and kept on disk."""

from lowgemm.ops._arrays import OperandError as OperandError
from lowgemm.ops._call import KernelError as KernelError
from lowgemm.ops._call import get_num_threads as get_num_threads
from lowgemm.ops._call import set_num_threads as set_num_threads
from lowgemm.ops._gemm import PackedGemm as PackedGemm
from lowgemm.ops._gemm import Quantize as Quantize
from lowgemm.ops._gemm import pack_gemm as pack_gemm
from lowgemm.ops._output import Output as Output
from lowgemm.ops._output import Residual as Residual
