"""The schedule of the matrix product on AMX tiles.

[stage all rows]                                     in the operand dtype
for block of columns (parallel):
  configure tiles                                    for the rows that a tile has
  for tile of rows:
    C[row tiles, column tiles] = 0                   registers
    for k:  load A[row tiles], B[column tiles]; C += A B
    store C                                          32-bit sums, in the first cache
    for row, vector:  dst = output stage(sums)
  release tiles
"""

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import SBlock, SBlockRealize

from lowgemm import intrin
from lowgemm.packing import ConvPacking
from lowgemm.schedules import _steps
from lowgemm.targets import TILE_BYTES, TILE_ROWS
from lowgemm.tiling import TileConfig
from lowgemm.topi import GemmForm


def schedule_tiles(
    func: tvm.tirx.PrimFunc, packing: ConvPacking, form: GemmForm, config: TileConfig
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qgemm`'s function, of a form with `fewer` rows, around the product of tiles.

    Raises:
        ValueError: the configuration does not divide the columns, or is for another number of rows.
    """
    if packing.panels % config.vectors:
        raise ValueError(f"{config}: {config.vectors} tiles do not divide {packing.panels}")
    if form.rows != config.rows or not form.fewer:
        raise ValueError(f"{config}: the function is for {form.rows} rows")
    lanes, depth = packing.layout.lanes, packing.layout.step
    names = intrin.tile_product(packing.layout.lhs, depth)
    sch = s_tir.Schedule(func)
    product = sch.get_sblock("acc")
    store = sch.cache_write(product, 0, intrin.TILE_SCOPE)
    sch.set_scope(store, 0, "local")
    t, x, o = sch.get_loops(store)
    po, pi, lane = sch.split(o, [None, config.vectors, lanes])
    xo, xi = sch.split(x, [config.row_tiles, TILE_ROWS])
    sch.reorder(po, t, xo, pi, xi, lane)
    t = sch.merge(t, _output_at(sch, form, packing, config.vectors))
    sch.compute_at(product, t, preserve_unit_loops=True)
    *_, ax, ao, j = sch.get_loops(product)
    axo, axi = sch.split(ax, [None, TILE_ROWS])
    ap, al = sch.split(ao, [None, lanes])
    jo, jk = sch.split(j, [None, depth])
    sch.reorder(jo, axo, ap, axi, al, jk)
    lhs, rhs = sch.get_sblock("left"), sch.cache_read(product, 1, intrin.TILE_SCOPE)
    sch.set_scope(lhs, 0, intrin.TILE_SCOPE)
    for block in (rhs, lhs):
        sch.compute_at(block, jo, preserve_unit_loops=True)
    *_, x, _ = sch.get_loops(lhs)
    lo, li = sch.split(x, [None, TILE_ROWS])
    *_, panel, _, _, ri, _, _ = sch.get_loops(rhs)
    sch.parallel(sch.get_loops(store)[0])
    if form.staged:
        _steps.vectorize_stage(sch)
    if form.dynamic:
        _steps.vectorize_ranges(sch, form.depth)
    zero = sch.decompose_reduction(product, jo)
    *_, zxo, zp, zxi, _ = sch.get_loops(zero)
    for loop in (zxo, zp, lo, panel, axo, ap, xo, pi):
        sch.unroll(loop)
    for loop, name in (
        (zxi, names.zero),
        (li, names.load_lhs),
        (ri, names.load_rhs),
        (axi, names.dot),
        (xi, names.store),
    ):
        sch.tensorize(loop, name)
    return _configured(sch.mod["main"], depth, config)


def _output_at(sch: s_tir.Schedule, form: GemmForm, packing: ConvPacking, vectors: int):
    """for t, x, o  ->  for block of columns: for t: for x: for vector, lane; the loop over tiles."""
    lanes = packing.layout.lanes
    whole = form.columns == packing.panels * lanes
    t, x, o = sch.get_loops(sch.get_sblock("dst" if whole else "codes"))
    po, pi, lane = sch.split(o, [None, vectors, lanes])
    sch.reorder(po, t, x, pi, lane)
    if form.output.residual and whole:
        # Several vectors at once: each has a long chain of dependent operations.
        sch.vectorize(sch.fuse(pi, lane))
    else:
        sch.unroll(pi)
        sch.vectorize(lane)
    return t


def _configured(func: tvm.tirx.PrimFunc, depth: int, config: TileConfig) -> tvm.tirx.PrimFunc:
    """for .. in parallel(..): body  ->  for .. in parallel(..): ldtilecfg; body; tilerelease"""
    memory = tirx.decl_buffer((_CONFIG_WORDS,), "int32", "tile_config")
    rows = func.params[-1].ty.shape[1]
    words = [
        tirx.BufferStore(memory, value, [i])
        for i, value in enumerate(_config_words(rows, depth, config))
    ]
    load = tirx.Evaluate(intrin.tile_instruction("ldtilecfg", memory.access_ptr("r")))
    release = tirx.Evaluate(intrin.tile_instruction("tilerelease"))
    whole = [tvm.ir.Range(0, _CONFIG_WORDS)]
    before = _block("configure", [*words, load], [tirx.BufferRegion(memory, whole)])
    after = _block("release", [release], [])

    def wrapped(stmt):
        if isinstance(stmt, tirx.SeqStmt):
            return tirx.SeqStmt([wrapped(each) for each in stmt])
        if not isinstance(stmt, tirx.For) or stmt.kind != tirx.ForKind.PARALLEL:
            return stmt
        body = tirx.SeqStmt([before, stmt.body, after])
        return tirx.For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body)

    root = func.body.block
    buffers = [*root.alloc_buffers, memory]
    block = SBlock([], [], [], root.name_hint, wrapped(root.body), alloc_buffers=buffers)
    return func.with_body(SBlockRealize([], True, block))


def _block(name: str, stmts: list, writes: list):
    body = tirx.SeqStmt(stmts) if len(stmts) > 1 else stmts[0]
    return SBlockRealize([], True, SBlock([], [], writes, name, body))


# Bytes: 0 the palette, 16 + 2 i the bytes of a row of tile i, 48 + i its rows.
_CONFIG_WORDS = 16


def _config_words(rows, depth: int, config: TileConfig) -> list:
    """The tile configuration for blocks of `rows` rows, the last tile's maybe fewer than 16, as 32-bit words."""
    before = config.row_tiles - 1
    heights = [TILE_ROWS] * before + [rows - TILE_ROWS * before]
    registers = {
        intrin.FIRST_SUMS: [
            (height, TILE_BYTES) for height in heights for _ in range(config.vectors)
        ],
        intrin.FIRST_LHS: [(height, depth) for height in heights],
        intrin.FIRST_RHS: [(depth // 4, TILE_BYTES)] * config.vectors,
    }
    words: list = [1] + [0] * (_CONFIG_WORDS - 1)
    for first, tiles in registers.items():
        for number, (height, width) in enumerate(tiles, first):
            words[4 + number // 2] += width << 16 * (number % 2)
            words[12 + number // 4] += height << 8 * (number % 4)
    return [tirx.const(word, "int32") if isinstance(word, int) else word for word in words]
