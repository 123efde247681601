"""Tuning: which configuration of a kernel is the fastest for its shape on its CPU, found by measuring.

space      schedules declare which configurations there are       lowgemm/schedules/_spaces.py
search     which one comes next: a cost model ranks them          _search.py, _model.py, _features.py
build      candidates become libraries, several at a time         _build.py, _problem.py
measure    verified, then timed in turns with the incumbent       _measure.py, _child.py, _rpc.py
database   every trial a line that stays                          _database.py
"""

from lowgemm.tune._tune import load_configs as load_configs
from lowgemm.tune._tune import tune as tune
from lowgemm.tune._tune import write_report as write_report
