"""The decorator of functions in TVMScript, which has to be called as `module.prim_func(...)`."""

from lowgemm.topi import prim_func as prim_func
