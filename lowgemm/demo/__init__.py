"""The demo: a small digit classifier and real labelled digits, through the whole of lowgemm."""

from lowgemm.demo._run import DemoReport as DemoReport
from lowgemm.demo._run import run_demo as run_demo
from lowgemm.demo._samples import MODEL_PATH as MODEL_PATH
from lowgemm.demo._samples import Digits as Digits
from lowgemm.demo._samples import load_digits as load_digits
