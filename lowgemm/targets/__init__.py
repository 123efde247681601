"""CPU targets: instruction-set levels, what each needs of a CPU, and what this host has.

A level is a set of CPU features, never a chip's name: `avx2`, `avx_vnni`, `avx512`, `avx512_vnni`, `amx_int8`. The last
has not run on hardware yet: it is used where it is named, and nowhere else.
"""

from lowgemm.targets._levels import LEVELS as LEVELS
from lowgemm.targets._levels import CpuTarget as CpuTarget
from lowgemm.targets._levels import host as host
from lowgemm.targets._levels import host_features as host_features
from lowgemm.targets._levels import host_levels as host_levels
from lowgemm.targets._levels import parse as parse
from lowgemm.targets._tiles import TILE_BYTES as TILE_BYTES
from lowgemm.targets._tiles import TILE_COLUMNS as TILE_COLUMNS
from lowgemm.targets._tiles import TILE_ROWS as TILE_ROWS
from lowgemm.targets._tiles import permit_tiles as permit_tiles
