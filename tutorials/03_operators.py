# %% [markdown]
# # Operators: one packed weight, many calls
#
# `lowgemm.ops` has the kernels that compiled models are made of, for whoever has arrays and no
# model: pack a weight once, and call it with any number of rows. A kernel is compiled when it is
# first needed and kept on disk, so the next process finds it there. Here is a linear layer of a
# quantized network, from exact integers to a dynamically quantized float layer.

# %%
import numpy as np

from lowgemm import ops

rng = np.random.default_rng(0)
rows, depth, columns = 37, 300, 200
a = rng.integers(0, 256, (rows, depth), dtype=np.uint8)
b = rng.integers(-128, 128, (depth, columns), dtype=np.int8)

# %% [markdown]
# ## Exact sums
#
# Without an output stage a product gives its 32-bit sums. They are the integers that mathematics
# has, on every CPU: nothing saturates on the way, also where there is no VNNI and other libraries
# add pairs of products in 16 bits. So the comparison is `==`, and the worst case is harmless: 255
# times 127, all along the depth.

# %%
exact = ops.pack_gemm(b, a_zero_point=128)
assert (exact(a) == (a.astype(np.int64) - 128) @ b.astype(np.int64)).all()

worst = ops.pack_gemm(np.full((depth, columns), 127, np.int8))
assert (worst(np.full((rows, depth), 255, np.uint8)) == 255 * 127 * depth).all()

# %% [markdown]
# ## Output stages
#
# What a quantized network does with the sums happens while they are in registers. With scales `sa`,
# `sb` (one for each column) and `sy`, the code is `rint(sum * (sa * sb / sy)) + zero_point`, clamped;
# ReLU is a narrower clamp. An `Output` can also add a bias or a residual, look codes up in a table,
# or leave floats. The packed weight is shared by all that are made of it.

# %%
sa, sb, sy = np.float32(0.02), rng.uniform(0.001, 0.003, columns).astype(np.float32), 0.07
bias = rng.integers(-5000, 5000, columns).astype(np.int32)
multiplier = sa * sb / np.float32(sy)
layer = exact.with_output(
    ops.Output("uint8", multiplier=multiplier, zero_point=3, bias=bias, activation="relu")
)
codes = layer(a)

sums = exact(a) + bias
expected = np.rint(sums.astype(np.float32) * multiplier) + 3
assert (codes == np.clip(expected, 3, 255)).all()

# %% [markdown]
# ## Any number of rows
#
# A kernel has whole tiles of rows, and one tail for every number of rows that is left over. So one
# packed weight serves a batch as well as a single row, and each row's result does not depend on
# what stands beside it, nor on how many threads share the work.

# %%
for count in (1, 2, 7, rows):
    assert (layer(a[:count]) == codes[:count]).all()

# %% [markdown]
# ## Float in, float out
#
# A transformer's linear layer gets floats. `Quantize("row")` finds the range of every row (token)
# while the row is packed, quantizes it to `uint8` and takes the scale along to the output.

# %%
weight = rng.normal(size=(depth, columns)).astype(np.float32)
scale = np.abs(weight).max(0) / np.float32(127)
dynamic = ops.pack_gemm(
    np.rint(weight / scale).astype(np.int8),
    quantize=ops.Quantize("row"),
    output=ops.Output("float32", multiplier=scale),
)
x = rng.normal(size=(rows, depth)).astype(np.float32)
y, real = dynamic(x), x @ weight
error = np.linalg.norm(y - real) / np.linalg.norm(real)
print(f"relative error of 8-bit weights and activations: {error:.2%}")
assert error < 0.02

# %% [markdown]
# ## Less to do for each call
#
# A call checks its arguments and makes an array for the result, which takes a few microseconds. To
# spare these, bind the product to arrays that stay.

# %%
out = np.empty((rows, columns), np.uint8)
run = layer.bind(a, out)
run()
assert (out == codes).all()
a[...] = rng.integers(0, 256, a.shape, dtype=np.uint8)  # in place
run()
assert (out == layer(a)).all()

# %% [markdown]
# ## What does not fit is said
#
# In one line, with the argument's name.

# %%
try:
    layer(a.astype(np.int8))
except ops.OperandError as error:
    print(error)
    assert "a: expected uint8 of shape" in str(error)
