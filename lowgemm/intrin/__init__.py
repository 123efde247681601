"""The CPU's dot-product instructions as tensor intrinsics: one record each, the meaning beside the instruction."""

from lowgemm.intrin._bytes import interleave_rows as interleave_rows
from lowgemm.intrin._bytes import narrow_block as narrow_block
from lowgemm.intrin._dot import Dot as Dot
from lowgemm.intrin._dot import broadcast_dot as broadcast_dot
from lowgemm.intrin._dot import lanewise_dot as lanewise_dot
