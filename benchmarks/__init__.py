"""Measurements of lowgemm beside other engines: same machine, same run, in turns.

`python -m benchmarks models` times whole models, `python -m benchmarks.zoo` builds those models.
"""
