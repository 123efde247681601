"""Measurements of lowgemm beside other engines: same machine, same run, in turns.

python -m benchmarks models|gemm|conv|depthwise [--threads N] [--record]    time, and keep a record
python -m benchmarks accuracy                                             are int8 results right?
python -m benchmarks.zoo                                                  build the models
python -m benchmarks.render                                               README's tables from the records
"""
