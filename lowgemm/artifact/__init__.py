"""From a plan to one self-contained shared library."""

from lowgemm.artifact.build import build as build
from lowgemm.artifact.build import compile_runtime as compile_runtime
from lowgemm.artifact.plan import Buffer as Buffer
from lowgemm.artifact.plan import Plan as Plan
from lowgemm.artifact.plan import Port as Port
from lowgemm.artifact.plan import Step as Step
from lowgemm.artifact.plan import Variant as Variant
