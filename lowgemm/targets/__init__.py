"""CPU targets: instruction-set levels, what each needs of a CPU, and what this host has.

A level is a set of CPU features, never a chip's name: `avx2`, `avx_vnni`, `avx512`, `avx512_vnni`.
"""

from lowgemm.targets._levels import LEVELS as LEVELS
from lowgemm.targets._levels import CpuTarget as CpuTarget
from lowgemm.targets._levels import host as host
from lowgemm.targets._levels import host_features as host_features
from lowgemm.targets._levels import host_levels as host_levels
from lowgemm.targets._levels import parse as parse
