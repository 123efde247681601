"""From a fused graph to a program for one target: kernels, the calls in order, and where each tensor lives."""

from lowgemm.lower._lower import lower as lower
from lowgemm.lower._memory import MemoryPlan as MemoryPlan
from lowgemm.lower._memory import plan_memory as plan_memory
from lowgemm.lower._program import Call as Call
from lowgemm.lower._program import Operand as Operand
from lowgemm.lower._program import Program as Program
