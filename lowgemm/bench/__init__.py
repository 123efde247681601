"""Measuring lowgemm beside other engines: same machine, same run, same work, in turns, results checked first.

`lowgemm bench` measures a user's model with it, `benchmarks/` in the repository everything else.
"""
