"""The schedule of depthwise convolution: lanes are channels, the reduction runs over interleaved rows and columns.

for rows x channels (parallel):
  stage the block's rows, d of them interleaved
  for y, x tile, vector of channels:
    acc[columns] = 0
    for row group, column tap:  acc += dot(staged vector, weight vector)
    dst = epilogue(acc)
"""

from dataclasses import asdict, dataclass

import tvm
from tvm import s_tir

from lowgemm import intrin
from lowgemm.packing import ConvShape
from lowgemm.schedules import _steps
from lowgemm.targets import CpuTarget


@dataclass(frozen=True)
class DepthwiseConfig:
    """`columns` pixels of one vector of `lanes` channels are held in registers; a parallel block is `block_rows` output
    rows by `block_vectors` vectors of channels."""

    columns: int
    lanes: int
    block_rows: int
    block_vectors: int

    def __post_init__(self) -> None:
        if min(self.columns, self.lanes, self.block_rows, self.block_vectors) < 1:
            raise ValueError(f"{self}: every knob is at least 1")

    def to_json(self) -> dict:
        """The knobs by name."""
        return asdict(self)


def default_depthwise_config(shape: ConvShape, target: CpuTarget) -> DepthwiseConfig:
    """The heuristic choice for `shape`, used where nothing was tuned."""
    lanes = target.lanes
    if lanes == 16 and shape.out_channels % 16 and shape.out_channels % 16 <= 8:
        lanes = 8
    # Accumulators leave registers for the filter; the widest tile that wastes nothing, else the least waste.
    limit = target.registers // 2
    width = shape.out_width
    columns = min(range(1, limit + 1), key=lambda c: (-(-width // c) * c * (1 + 0.5 / c), -c))
    vectors = -(-shape.out_channels // lanes)
    # The staged block stays in L1/L2: width * rows * vectors * lanes * 4 bytes.
    block_vectors = _steps.largest_divisor(vectors, max(1, 4096 // (shape.width * lanes)))
    pixel_bytes = shape.width * shape.strides[0] * block_vectors * lanes * 4
    block_rows = _steps.largest_divisor(shape.out_height, max(1, 64 * 1024 // pixel_bytes))
    return DepthwiseConfig(columns, lanes, block_rows, block_vectors)


def schedule_qdepthwise2d(
    func: tvm.tirx.PrimFunc, shape: ConvShape, target: CpuTarget, config: DepthwiseConfig
) -> tvm.tirx.PrimFunc:
    """Schedule `topi.qdepthwise2d`'s function around the lanewise dot product."""
    dot = intrin.lanewise_dot(target, config.lanes)
    lanes = dot.lanes
    sch = s_tir.Schedule(func)
    acc, dst, stage = sch.get_sblock("acc"), sch.get_sblock("dst"), sch.get_sblock("stage")
    sch.set_scope(acc, 0, "local")

    n, y, x, o = sch.get_loops(dst)
    yb, yi = sch.split(y, [None, config.block_rows])
    xo, xi = sch.split(x, [None, config.columns])
    ob, ov, lane = sch.split(o, [None, config.block_vectors, lanes])
    sch.reorder(n, yb, ob, ov, yi, xo, xi, lane)
    sch.compute_at(acc, xo, preserve_unit_loops=True)
    block = sch.fuse(n, yb, ob)
    sch.parallel(block)
    sch.unroll(xi)
    if shape.out_channels % lanes == 0:
        sch.vectorize(lane)

    *_, ax, ao, r, c, i = sch.get_loops(acc)
    av, al = sch.split(ao, [None, lanes])
    sch.reorder(r, c, ax, av, al, i)

    sch.compute_at(stage, block, preserve_unit_loops=True)
    _steps.vectorize_innermost(sch, sch.get_loops(stage)[-1], lanes)
    if dot.rhs != "int8":
        widen = sch.get_sblock("widen")
        _steps.vectorize_innermost(sch, sch.fuse(*sch.get_loops(widen)), 16)
    _steps.initialise_registers(sch, acc, r, lanes)
    for loop in (r, c, ax, av):
        sch.unroll(loop)
    sch.tensorize(al, dot.name)
    return sch.mod["main"]
