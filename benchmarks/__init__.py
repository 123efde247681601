"""Measurements of lowgemm beside other engines: same machine, same run, in turns.

python -m benchmarks gemm|conv|depthwise|models|weights|embedding [--threads N] [--json FILE]    time one family
python -m benchmarks all --threads N          all of them, into records/LEVEL/
python -m benchmarks calls                    what a call costs, and a parallel region
python -m benchmarks plot RECORD... -o DIR    times against the roofline
python -m benchmarks accuracy                 are int8 results right?
python -m benchmarks.zoo                      build the models
python -m benchmarks.render                   README's tables from the records
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
# Records that are kept; README's tables are rendered from them.
RECORDS = Path(__file__).parent / "records"
