"""The CPU's dot-product instructions as tensor intrinsics: one record each, the meaning beside the instruction."""

from lowgemm.intrin._acc16 import saturating_dot as saturating_dot
from lowgemm.intrin._bfloat16 import bfloat16_dot as bfloat16_dot
from lowgemm.intrin._bfloat16 import defining_bfloat16_dot as defining_bfloat16_dot
from lowgemm.intrin._bytes import interleave_pair as interleave_pair
from lowgemm.intrin._bytes import interleave_rows as interleave_rows
from lowgemm.intrin._bytes import narrow as narrow
from lowgemm.intrin._bytes import narrow_block as narrow_block
from lowgemm.intrin._dot import Dot as Dot
from lowgemm.intrin._dot import broadcast_dot as broadcast_dot
from lowgemm.intrin._dot import lanewise_dot as lanewise_dot
from lowgemm.intrin._int64 import defining_int64 as defining_int64
from lowgemm.intrin._int64 import int64_cross_products as int64_cross_products
from lowgemm.intrin._int64 import int64_join as int64_join
from lowgemm.intrin._int64 import int64_low_product as int64_low_product
from lowgemm.intrin._int64 import int64_product as int64_product
from lowgemm.intrin._tile import FIRST_LHS as FIRST_LHS
from lowgemm.intrin._tile import FIRST_RHS as FIRST_RHS
from lowgemm.intrin._tile import FIRST_SUMS as FIRST_SUMS
from lowgemm.intrin._tile import TILE_SCOPE as TILE_SCOPE
from lowgemm.intrin._tile import Tiles as Tiles
from lowgemm.intrin._tile import tile_instruction as tile_instruction
from lowgemm.intrin._tile import tile_product as tile_product
from lowgemm.intrin._words import word_dot as word_dot
