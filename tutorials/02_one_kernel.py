# %% [markdown]
# # One kernel: from what a convolution means to the instructions that compute it
#
# lowgemm compiles every layer for its own shape. This script builds the kernel of one convolution by hand, with the
# same parts that the package uses, in the order in which it uses them:
#
# 1. the meaning, in numpy: exact integers (`lowgemm/reference`)
# 2. the layout of the weights, chosen for one instruction (`lowgemm/packing.py`)
# 3. a tensor expression: the same meaning over that layout (`lowgemm/topi`)
# 4. the instruction, with its meaning beside it (`lowgemm/intrin`)
# 5. a schedule: the loops, and which of them the instruction takes (`lowgemm/schedules`)
# 6. machine code, looked at and compared with 1
#
# It runs on the best instruction-set level of this machine; `LOWGEMM_ISA=avx2` in the environment chooses another.

# %%
import re
import time

import numpy as np
import tvm
from tvm import s_tir, te

from lowgemm import codegen, intrin, reference, schedules, targets, topi
from lowgemm.artifact.objects import compile_kernels
from lowgemm.packing import ConvPacking, ConvShape

target = targets.host()
print(f"{target.level}: vectors of {target.vector_bits} bits, {target.registers} registers")

# %% [markdown]
# ## 1. What it means
#
# A 3x3 filter over an image with 64 channels, NHWC. Activations are `uint8` codes, weights are `int8`. To keep the
# kernel short, the image has its border already, and the zero point of its codes is 0.
#
# The sums are taken in 32 bits, where they are exact: 576 products of at most 255 * 128 stay below 2^31. Then each
# sum becomes a code again. `scale` is the scale of the input times that of the channel's weights, over that of the
# output; a product is rounded to the nearest integer, ties to even, and clamped to what `uint8` holds.

# %%
shape = ConvShape(1, 30, 30, in_channels=64, out_channels=64, kernel=(3, 3))
taps = 3 * 3 * shape.in_channels
assert taps * 255 * 128 < 2**31

random = np.random.default_rng(0)
x = random.integers(0, 256, (1, 30, 30, 64), np.uint8)
w = random.integers(-128, 128, (64, 64, 3, 3), np.int8)
bias = random.integers(-1000, 1000, 64, np.int32)
scale = random.uniform(1e-4, 4e-4, 64).astype(np.float32)
zero_point = 128

exact = reference.conv2d_i32(x, w)
expected = reference.requantize(exact + bias, scale, zero_point)
print(f"sums from {exact.min()} to {exact.max()}, codes from {expected.min()} to {expected.max()}")

# The definition of one sum, to see that there is nothing more to it.
window = x[0, 5:8, 9:12].astype(np.int64)
assert exact[0, 5, 9, 17] == (window * w[17].transpose(1, 2, 0)).sum()

# %% [markdown]
# ## 2. The layout of the weights
#
# A dot-product instruction works on a vector of 32-bit lanes. In each lane it multiplies `depth` neighbours of one
# operand by those of the other and adds the products to the lane's sum. With VNNI (`vpdpbusd`) these are 4 bytes;
# without it (`vpmaddwd`) they are 2 numbers of 16 bits, so that bytes are widened first. There is an instruction that
# would take bytes, `vpmaddubsw`, but it sums in 16 bits and saturates: two products can be 2 * 255 * 128. (Kernels use
# it for weights that cannot make it saturate, `target.summing(1)`; these here can.)
#
# Let each lane have an output channel. Then one vector of weights holds `depth` weights for each of `lanes` channels,
# while all lanes share the same `depth` activations. Packed so at compile time, a kernel reads its weights front to
# back.
#
# In NHWC a row of the filter window is one run of 3 * 64 neighbouring activations, so there are three taps, not nine.

# %%
layout = schedules.dot_layout(target, target.lanes)
packing = ConvPacking.of(shape, layout)
packed = packing.pack(w)
print(f"{layout.lanes} lanes of {layout.depth} products, {layout.lhs} by {layout.rhs}")
print(
    f"weights {w.shape} packed as [panel][tap row][tap column][step][lane][product]: {packed.shape}"
)

lanes, depth = layout.lanes, layout.depth
channel, row, k = 37, 1, 130  # activation 130 of a run: column 2, input channel 2
assert (
    packed[channel // lanes, row, 0, k // depth, channel % lanes, k % depth] == w[channel, 2, 1, 2]
)

# %% [markdown]
# ## 3. The tensor expression
#
# The same meaning once more, for the compiler: what each element is, and nothing about how or when it is computed.
# `topi.requantize` is the expression of the rounding that every kernel of the package ends with.

# %%
in_row = shape.width * shape.in_channels
X = te.placeholder((shape.height, in_row), layout.lhs, name="x")
W = te.placeholder(packed.shape, layout.rhs, name="w")
B = te.placeholder((64,), "int32", name="bias")
S = te.placeholder((64,), "float32", name="scale")
P = te.placeholder((3,), "float32", name="params")  # zero point, least and greatest code

r = te.reduce_axis((0, 3), "r")
j = te.reduce_axis((0, packing.run), "j")
out_shape = (shape.out_height, shape.out_width, 64)


def one_sum(y, x, o):
    activation = X[y + r, x * shape.in_channels + j].astype("int32")
    weight = W[o // lanes, r, 0, j // depth, o % lanes, j % depth].astype("int32")
    return te.sum(activation * weight, axis=[r, j])


acc = te.compute(out_shape, one_sum, name="acc")
dst = te.compute(
    out_shape,
    lambda y, x, o: topi.requantize(acc[y, x, o], B[o], S[o], P).astype("uint8"),
    name="dst",
)
function = te.create_prim_func([X, W, B, S, P, dst])
print(function.script())

# %% [markdown]
# It can be compiled as it is. That is correct, and slow: one sum after the other, and all sums go through memory
# before the first one becomes a code.


# %%
def build(func: tvm.tirx.PrimFunc) -> tvm.runtime.Executable:
    return compile_kernels(tvm.IRModule({"main": func}), codegen.llvm_target(target))


def run(compiled: tvm.runtime.Executable) -> tuple[np.ndarray, float]:
    """The codes, and the least time of five runs in seconds."""
    params = np.array([zero_point, 0, 255], np.float32)
    # Without VNNI the operands are 16 bits wide. The package's kernels widen them themselves.
    image = x.reshape(shape.height, in_row).astype(layout.lhs)
    arrays = [image, packed.astype(layout.rhs), bias, scale, params, np.empty(out_shape, np.uint8)]
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        compiled["main"](*tensors)
        times.append(time.perf_counter() - started)
    return tensors[-1].numpy(), min(times)


codes, slow = run(build(function))
assert np.array_equal(codes, expected[0])
print(f"as it is: {2e-9 * shape.macs / slow:.1f} GOPS")

# %% [markdown]
# ## 4. The instruction
#
# TVM does not find dot products by itself. An intrinsic has two forms: a description in plain loops, which is
# compared with the part of the kernel that it is to replace, and the implementation. If the description does not
# match, there is an error, never a wrong result.

# %%
dot = intrin.broadcast_dot(target, lanes)
description = s_tir.TensorIntrin.get(dot.name).desc
implementation = s_tir.TensorIntrin.get(dot.name).impl
print(description.script())
print(implementation.script())
assert "T.call_llvm_pure_intrin" not in description.script()
assert "T.call_llvm_pure_intrin" in implementation.script()

# %% [markdown]
# ## 5. The schedule
#
# A core starts two dot products a cycle at best, each waits several cycles for its sum, and each needs two operands
# from somewhere. So a kernel computes a tile of outputs at once, in registers: `columns` pixels by `vectors` vectors
# of channels. One step loads `vectors` vectors of weights, and broadcasts one group of activations a pixel, for
# `columns * vectors` dot products that do not wait for each other. The tile must leave registers for these operands.

# %%
columns, vectors = (14, 2) if target.registers == 32 else (4, 2)
temporary = 0 if depth == 4 else 1  # vpmaddwd multiplies, another instruction adds
assert columns * vectors + vectors + 1 + temporary <= target.registers

sch = s_tir.Schedule(function)
acc_block, dst_block = sch.get_sblock("acc"), sch.get_sblock("dst")

# Outputs: for each panel of channels, row and group of columns, a tile.
loop_y, loop_x, loop_o = sch.get_loops(dst_block)
tile_x, column = sch.split(loop_x, [None, columns])
panel, vector, lane = sch.split(loop_o, [None, vectors, lanes])
sch.reorder(panel, loop_y, tile_x, column, vector, lane)
for loop in (column, vector):
    sch.unroll(loop)
sch.vectorize(lane)

# Sums: computed where their tile is, so that they become codes while they are still in registers.
sch.compute_at(acc_block, tile_x, preserve_unit_loops=True)
*_, acc_column, acc_o, loop_r, loop_j = sch.get_loops(acc_block)
acc_vector, acc_lane = sch.split(acc_o, [None, lanes])
step, product = sch.split(loop_j, [None, depth])
# The reduction goes outside, the tile inside, and the instruction's own two loops innermost.
sch.reorder(loop_r, step, acc_column, acc_vector, acc_lane, product)

# Zeroing comes before the reduction, not in it.
zeroing = sch.decompose_reduction(acc_block, loop_r)
*_, zero_column, zero_vector, zero_lane = sch.get_loops(zeroing)
sch.vectorize(zero_lane)
for loop in (zero_column, zero_vector, acc_column, acc_vector):
    sch.unroll(loop)
print(sch.mod["main"].script())

# %% [markdown]
# The loops are in place, and the two innermost ones are what the instruction computes. Now it takes them over.

# %%
sch.tensorize(acc_lane, dot.name)
scheduled = sch.mod["main"]
assert "T.call_llvm_pure_intrin" in scheduled.script()

# %% [markdown]
# ## 6. The machine code
#
# A schedule says what should happen; the assembly says what does. The inner loop must hold one dot product for each
# vector of the tile, and no vector may travel to the stack and back.

# %%
compiled = build(scheduled)
instruction = "vpdpbusd" if depth == 4 else "vpmaddwd"
lines = [line.strip() for line in compiled.mod.inspect_source("asm").splitlines()]
lines = [line for line in lines if re.match(r"\.LBB|\w|\{", line)]  # labels and instructions
assert not any("vpmaddubsw" in line for line in lines)

# Pieces between labels and jumps; those with dot products are the inner loop, perhaps unrolled.
pieces: list[list[str]] = [[]]
for line in lines:
    pieces[-1].append(line)
    if re.match(r"\.LBB|j[a-z]+\s", line):
        pieces.append([])
loops = [piece for piece in pieces if any(instruction in line for line in piece)]
for piece in loops:
    dots = [line for line in piece if instruction in line]
    spills = [line for line in piece if re.match(r"vmov\w+\s+%[xyz]mm\d+, -?\d*\(%r[sb]p\)", line)]
    print(f"a loop of {len(piece)} instructions, {len(dots)} of them {instruction}:")
    print("   ", "\n    ".join(piece[:6]), "\n    ...")
    assert len(dots) % (columns * vectors) == 0
    assert not spills
assert loops

# %% [markdown]
# And it computes what section 1 says: not nearly, but the same codes, of which there is no tolerance to choose.

# %%
codes, fast = run(compiled)
assert np.array_equal(codes, expected[0])
print(
    f"scheduled: {2e-9 * shape.macs / fast:.0f} GOPS on one core, {slow / fast:.0f} times as fast"
)
assert fast < slow

# %% [markdown]
# ## What the package adds
#
# `lowgemm.schedules.schedule_qconv2d` is this schedule for every shape. It also stages inputs that have a border, a
# stride or another operand type, rounds sizes up where a tile does not divide them, spreads blocks over threads, and
# adds a second operand behind the sums. `default_conv_config` chooses the tile:

# %%
print(schedules.default_conv_config(shape, target))

# %% [markdown]
# To see the kernels of a whole model, and how near each one is to what this CPU can do, run `lowgemm inspect` on a
# library.
